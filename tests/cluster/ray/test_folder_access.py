import os
from pathlib import Path

import pytest
from support.cluster.another_user import NOBODY, as_another_user

from cluster.ray.folder_access import access_by_others, replaceable_by_others


@pytest.mark.parametrize(
    ("modes", "way"),
    [  # modes of nested folders, some of them set by Ray
        ((0o700, 0o777, 0o777), None),  # by an embedded Ray
        ((0o755, 0o700, 0o777), None),
        ((0o755, 0o755, 0o700), None),
        ((0o755, 0o777, 0o777), "other users may replace files in {}/1/2 (mode 0777)"),  # by Ray
        ((0o755, 0o755, 0o777), "other users may replace files in {}/1/2/3 (mode 0777)"),
        ((0o755, 0o1777, 0o755), "other users may enter {}/1/2"),
        ((0o1777, 0o700, 0o777), None),  # a folder in /tmp
        ((0o777, 0o700, 0o777), "other users may replace files in {}/1 (mode 0777)"),
        ((0o775, 0o700, 0o777), "other users may replace files in {}/1 (mode 0775)"),
        ((0o755, 0o710, 0o755), "other users may enter {}/1/2"),
        ((0o755, 0o744, 0o755), None),  # users can list names, but not access the files
    ],
)
def test_access_of_other_users_follows_from_the_modes_of_all_parents(
    modes: tuple[int, ...], way: str | None, parent: Path
) -> None:
    folder = parent / "1" / "2" / "3"
    folder.mkdir(parents=True)
    for step, mode in zip((folder.parent.parent, folder.parent, folder), modes, strict=True):
        step.chmod(mode)
    assert access_by_others(folder) == (way and way.format(parent))
    (folder / "file").touch()
    other = f"{folder.parent} {parent}/1/new"
    taken = as_another_user(f"mv {folder}/file {folder}/file2 || mv {other}")
    if way is None:
        assert taken.returncode != 0
        assert as_another_user(f"cat {folder}/file").returncode != 0
    elif "0777" in way:
        assert taken.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_the_owner_of_a_parent_folder_may_replace_its_content(parent: Path) -> None:
    folder = parent / "his" / "mine"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    os.chown(folder.parent, NOBODY, NOBODY)
    assert access_by_others(folder) == f"{folder.parent} belongs to another user ({NOBODY})"
    assert replaceable_by_others(folder) == access_by_others(folder)
    assert as_another_user(f"mv {folder} {folder}2").returncode == 0


def test_a_folder_that_others_may_enter_need_not_be_replaceable(parent: Path) -> None:
    assert replaceable_by_others(parent) is None
    assert access_by_others(parent) == f"other users may enter {parent.parent}"
