"""One project of phantoms for all tests of the page, and the page that shows it."""

from __future__ import annotations

import pytest

from tests.page_server import catalog_of, make_world, serving


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def running(project):
    with serving(catalog_of(project)) as found:
        yield found


@pytest.fixture(scope="module")
def client(running):
    return running.enter()


@pytest.fixture(scope="module")
def picture(project):
    """A picture that the store does not hold: another phantom's, half as bright."""
    import io

    from PIL import Image

    path = next((project / "MURA-v1.1/valid").rglob("*.png"))
    buffer = io.BytesIO()
    Image.open(path).point(lambda grey: grey // 2).save(buffer, "PNG")
    return buffer.getvalue()
