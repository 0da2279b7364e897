"""A cloud for each test."""

import pytest

from tests.launch.cloud import Cloud, make_project


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A repository with launch/, in a folder whose name needs quotes."""
    return make_project(tmp_path_factory.mktemp("launch") / "it's a project")


@pytest.fixture
def cloud(tmp_path, project):
    """Nothing runs there yet, and nothing does when the test has ended."""
    made = Cloud(tmp_path, project)
    yield made
    made.end()
