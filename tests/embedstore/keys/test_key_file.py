"""Key files: written once, for their owner only, and not before something is extracted."""

import os
import pickle

import pytest

from embedstore.errors import DataError
from embedstore.keys.key_file import Key, open_key, read_key, require_outside


def test_a_new_key_is_written_when_it_is_saved_for_its_owner_only(tmp_path):
    path = tmp_path / "keys" / "of" / "h.key"
    key = open_key(path)
    assert key.is_new
    assert not path.parent.exists()
    saved = key.save()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    assert (saved.secret, saved.is_new) == (key.secret, False)
    assert read_key(path).fingerprint == key.fingerprint


def test_a_key_that_another_process_made_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "h.key"
    late, early = open_key(path), open_key(path)
    early.save()
    with pytest.raises(DataError, match="another process has made this key file meanwhile"):
        late.save()
    assert read_key(path).secret == early.secret


def test_where_a_key_must_be_there_a_wrong_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such key file"):
        read_key(tmp_path / "typo.key")
    assert not (tmp_path / "typo.key").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_key_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "h.key"
    path.write_text("x" * 32)
    path.chmod(0)
    with pytest.raises(DataError, match="neither read nor made: Permission denied"):
        open_key(path)


def test_a_key_inside_a_store_is_refused(tmp_path):
    key = Key(tmp_path / "x.store" / "h.key", b"x" * 32)
    with pytest.raises(DataError, match="whoever gets that folder would get the key"):
        require_outside(key, tmp_path / "x.store")
    require_outside(key, tmp_path / "y.store")


def test_a_key_does_not_show_its_secret(tmp_path):
    key = Key(tmp_path / "h.key", b"very secret words")
    assert "secret words" not in repr(key)
    assert pickle.loads(pickle.dumps(key)) == key
