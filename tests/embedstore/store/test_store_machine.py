"""Extract, crash, fail, damage, repair, retry, revise, replace files, lose the key and read, against a plain dict."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedstore.datasets.base import Collection
from embedstore.errors import CorruptStore, Reason, StoreError
from embedstore.extraction.options import ExtractOptions
from embedstore.extraction.plan import write_plan
from embedstore.files import FAILPOINT_EXIT_CODE, FAILPOINT_VARIABLE, digested, failpoint_names, state_of
from embedstore.keys.key_file import Key
from embedstore.manifest import Manifest
from embedstore.revisions.compare import changes_of
from embedstore.revisions.revise import revise
from embedstore.store.reader import open_store
from embedstore.store.repair import repair_store
from embedstore.store.verify import verify_store
from embedstore.store.writer import open_writer
from tests.stores import (
    TOKEN_IDENTITY,
    TOKENS,
    known_result,
    manifest_of,
    store_bytes,
    tokens_of,
    vectors_of,
)

COMMIT_POINTS = failpoint_names("vectors", "further", "content", "receipt")
REVISION_POINTS = failpoint_names("receipt", "vectors", "further", "content", "manifest", "part", "store")
PLAN_POINTS = failpoint_names("manifest", "part", "store")
KEY, OTHER_KEY = (Key(Path("of-the-store.key"), secret * 20) for secret in (b"k", b"o"))


class StoreMachine(RuleBasedStateMachine):
    """The model is `vectors` (image number -> version of its file), `failed` (numbers) and `planned` (how many)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "s"
        self.vectors: dict[int, int] = {}
        self.versions: dict[int, int] = {}  # number -> version of its file, where that was replaced
        self.failed: set[int] = set()
        self.planned = 0
        self.frames: list[int] = []
        self.patients: dict[int, str] = {}  # number -> patient, where the table was corrected
        self.damaged: set[int] = set()  # numbers in chunks whose bytes were damaged and not repaired yet

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 9), chunk_rows=st.integers(1, 4))
    @precondition(lambda self: not self.damaged)
    def add_part(self, count: int, chunk_rows: int) -> None:
        self._plan(count, chunk_rows)
        self.planned += count

    @rule(count=st.integers(1, 4), point=st.sampled_from(PLAN_POINTS))
    @precondition(lambda self: not self.damaged)
    def crash_while_planning(self, count: int, point: str) -> None:
        listed_before = self.root.exists() and (self.root / "store.json").exists()
        # A new store writes store.json twice: empty, then with the part.
        hit = "" if listed_before or not point.startswith("store") else ":2"
        self._die_at(point + hit, lambda: self._plan(count, 2))
        if point in ("store.renamed", "store.durable"):
            self.planned += count

    @rule(fail=st.sets(st.integers(0, 40), max_size=3))
    @precondition(lambda self: self.planned and not self.damaged)
    def commit_next(self, fail: set[int]) -> None:
        found = self._next_pending()
        if found is None:
            return
        numbers = self._commit(*found, fail)
        for number in numbers:
            if number in fail:
                self.failed.add(number)
            else:
                self.vectors[number] = self.versions.get(number, 0)

    @rule(point=st.sampled_from(COMMIT_POINTS))
    @precondition(lambda self: self.planned and not self.damaged)
    def crash_while_committing(self, point: str) -> None:
        found = self._next_pending()
        if found is None:
            return
        self._die_at(point, lambda: self._commit(*found, set()))
        if point in ("receipt.renamed", "receipt.durable"):
            part, chunk = found
            for number in self._numbers(part, chunk):
                self.vectors[number] = self.versions.get(number, 0)

    @rule(point=st.sampled_from([*COMMIT_POINTS, ""]))
    @precondition(lambda self: self.failed and not self.damaged)
    def retry_a_failed_chunk(self, point: str) -> None:
        part, chunk = self._chunk_of(min(self.failed))
        if point:
            self._die_at(point, lambda: self._commit(part, chunk, set()))
        else:
            self._commit(part, chunk, set())
        if point in ("", "receipt.renamed", "receipt.durable"):
            for number in self._numbers(part, chunk):
                self.failed.discard(number)
                self.vectors[number] = self.versions.get(number, 0)

    @rule(
        names=st.dictionaries(st.integers(0, 40), st.sampled_from(["a", "b"]), min_size=1, max_size=4),
        frames=st.sets(st.integers(0, 40), max_size=2),
        point=st.sampled_from([*REVISION_POINTS, ""]),
    )
    @precondition(lambda self: self.planned and not self.damaged)
    def correct_the_table(self, names: dict[int, str], frames: set[int], point: str) -> None:
        """Change patients, and the frame of some images, whose vectors are then of other pixels."""
        names = {number: name for number, name in names.items() if number < self.planned}
        self.frames = [
            frame + 1 if number in frames else frame
            for number, frame in enumerate([*self.frames, *[0] * (self.planned - len(self.frames))])
        ]
        wanted = self._wanted(self.patients | names)
        changes = changes_of(open_store(self.root), wanted)
        if not changes:
            return
        # Arrow's threads do not reach a child process.
        assert [entry.own for entry in changes]
        done = not point
        if point:
            # A revision that withdraws nothing does not pass the points of a chunk.
            done = self._may_die_at(point, lambda: revise(self.root, changes))
        else:
            revise(self.root, changes)
        if not done:
            # The next one finishes it.
            revise(self.root, changes_of(open_store(self.root), wanted))
        self.patients |= names
        for number in {number for number in frames if number < self.planned}:
            if self.vectors.pop(number, None) is not None:
                self.failed.add(number)

    @rule(
        numbers=st.sets(st.integers(0, 40), min_size=1, max_size=4),
        touched=st.sets(st.integers(0, 40), max_size=2),
        point=st.sampled_from([*COMMIT_POINTS, ""]),
    )
    @precondition(lambda self: self.planned and not self.damaged)
    def replace_files(self, numbers: set[int], touched: set[int], point: str) -> None:
        """Write other content into files, and some with a new time alone; an extraction then takes that over."""
        numbers = {number for number in numbers if number < self.planned}
        for number in numbers:
            self.versions[number] = self.versions.get(number, 0) + 1
            self._file_of(number)
        for number in touched - numbers:
            if number < self.planned:
                os.utime(self._file_of(number), (1, 1))
        if point:
            self._may_die_at(point, self._take_over)
        self._take_over()
        for number in numbers:
            if self.vectors.pop(number, None) is not None:
                self.failed.add(number)

    @rule()
    @precondition(lambda self: self.planned and not self.damaged)
    def come_with_another_key(self) -> None:
        before = store_bytes(self.root)
        with pytest.raises(StoreError, match="is another key than that of part 0"):
            self._take_over(OTHER_KEY)
        after = store_bytes(self.root)
        # What a killed process left half written may go, as far as the refusal got; nothing may come.
        assert after.keys() <= before.keys()
        assert {name: after.get(name) for name in before if not name.endswith(".tmp")} == {
            name: payload for name, payload in before.items() if not name.endswith(".tmp")
        }

    @rule(pick=st.integers(0, 1_000), bit=st.integers(0, 7), array=st.sampled_from(["vectors", "tokens"]))
    @precondition(lambda self: self.vectors and not self.damaged)
    def flip_a_bit(self, pick: int, bit: int, array: str) -> None:
        numbers = sorted(self.vectors)
        number = numbers[pick % len(numbers)]
        part, chunk = self._chunk_of(number)
        row = self._numbers(part, chunk).index(number)
        plan = part.plan.arrays[array]
        path = part.layout.chunk(array, plan, chunk)
        payload = bytearray(path.read_bytes())
        payload[row * plan.row_bytes] ^= 1 << bit
        path.write_bytes(payload)
        self.damaged = set(self._numbers(part, chunk))

    @rule()
    @precondition(lambda self: self.damaged)
    def repair(self) -> None:
        findings = verify_store(self.root).findings
        # An interrupted retry elsewhere is a finding too, but its repair loses no row.
        damaged = [finding for finding in findings if "not the committed ones" in finding.problem]
        assert len(damaged) == 1
        repair_store(self.root, say=lambda line: None)
        for number in self.damaged:
            self.vectors.pop(number, None)
            self.failed.discard(number)
        self.damaged = set()

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not self.planned:
            return
        store = open_store(self.root)
        assert store.rows == self.planned
        if self.damaged:
            try:
                store.embeddings()
                store.array("tokens").all()
            except CorruptStore:
                return
            raise AssertionError("a damaged store answered")
        embeddings = store.embeddings()
        assert [f"image{number}" for number in sorted(self.vectors)] == list(embeddings.image_ids)
        for number, vector in zip(sorted(self.vectors), embeddings.vectors, strict=True):
            np.testing.assert_array_equal(vector, self._vector_of(number, self.vectors[number]))
        tokens = store.array("tokens").all()
        np.testing.assert_array_equal(tokens.rows, embeddings.rows)
        for number, grid in zip(sorted(self.vectors), tokens.values, strict=True):
            expected = tokens_of(number, number + 1)[TOKENS][0] - self.vectors[number] * 64
            np.testing.assert_array_equal(grid, expected)
        assert {failure.row for failure in store.failures} == self.failed
        found = store.table.column("patient_id").to_pylist()
        planned = manifest_of(self.planned).column("patient_id")
        assert found == [self.patients.get(number, patient) for number, patient in enumerate(planned)]

    def _plan(self, count: int, chunk_rows: int) -> None:
        with open_writer(self.root, TOKEN_IDENTITY, say=lambda line: None) as writer:
            writer.plan_part(
                manifest_of(count, first=self.planned),
                dataset="t",
                data_root="r",
                chunk_rows=chunk_rows,
                dtype="float16",
                key_fingerprint=KEY.fingerprint,
            )

    def _wanted(self, patients: dict[int, str]) -> Manifest:
        """Return what the table says now."""
        table = manifest_of(self.planned).table
        cells = table.column("patient_id").to_pylist()
        for number, name in patients.items():
            cells[number] = name
        frames = [*self.frames, *[0] * (self.planned - len(self.frames))]
        table = table.set_column(3, "patient_id", pa.array(cells))
        return Manifest(table.set_column(2, "frame", pa.array(frames, pa.int32())))

    def _take_over(self, key: Key = KEY) -> None:
        """Do what an extraction does with a store before it computes anything."""
        collection = Collection("t", self.folder / "files", self._wanted(self.patients), key=key)
        with open_writer(self.root, TOKEN_IDENTITY, say=lambda line: None) as writer:
            write_plan(writer, collection, collection.manifest, ExtractOptions(), say=lambda line: None)

    def _file_of(self, number: int) -> str:
        """Write the file of an image where it is not there in its version, and return its path."""
        path = self.folder / "files" / f"image{number}.png"
        content = f"image {number}, version {self.versions.get(number, 0)}"
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        return str(path)

    def _vector_of(self, number: int, version: int) -> np.ndarray:
        return vectors_of(number, number + 1)[0] + version * 64

    def _commit(self, part, chunk, fail):
        numbers = self._numbers(part, chunk)
        start, _ = part.plan.bounds(chunk)
        failures = {
            start + at: (Reason.UNREADABLE, "x") for at, number in enumerate(numbers) if number in fail
        }
        with open_writer(self.root, TOKEN_IDENTITY, say=lambda line: None) as writer:
            result = known_result(TOKEN_IDENTITY, numbers[0], numbers[-1] + 1, failures)
            moved = np.array([self.versions.get(number, 0) * 64 for number in numbers], np.float32)
            files = [self._file_of(number) for number in numbers]
            result = replace(
                result,
                vectors=result.vectors + moved[:, None],
                further={TOKENS: result.further[TOKENS] - moved[:, None, None]},
                sources=tuple(digested(file, state_of(file)) for file in files),
            )
            writer.commit(part.plan, chunk, result)
        return numbers

    def _next_pending(self):
        for part in open_store(self.root).parts:
            if part.pending:
                return part, part.pending[0]
        return None

    def _numbers(self, part, chunk) -> list[int]:
        start, stop = part.plan.bounds(chunk)
        return [int(record.image_id.removeprefix("image")) for record in part.manifest.records(start, stop)]

    def _chunk_of(self, number: int):
        for part in open_store(self.root).parts:
            for chunk in part.receipts:
                if number in self._numbers(part, chunk):
                    return part, chunk
        raise AssertionError(number)

    def _may_die_at(self, point: str, act) -> bool:
        """Run to the end, or to a point on the way; return whether the end was reached or committed."""
        code = self._code_of(point, act)
        assert code in (0, FAILPOINT_EXIT_CODE), point
        return code == 0 or point in ("store.renamed", "store.durable")

    def _die_at(self, point: str, act) -> None:
        assert self._code_of(point, act) == FAILPOINT_EXIT_CODE, point

    def _code_of(self, point: str, act) -> int:
        child = os.fork()
        if child == 0:
            os.environ[FAILPOINT_VARIABLE] = point
            code = 1
            try:
                act()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)


StoreMachine.TestCase.settings = settings(max_examples=14, stateful_step_count=20, deadline=None)
TestStoreMachine = StoreMachine.TestCase
