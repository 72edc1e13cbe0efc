import pytest

from unihap.synth.body import Body


@pytest.fixture(scope="session")
def body() -> Body:
    """The bare body; tests that need it are skipped where the extra ``synth`` is not installed."""
    pytest.importorskip("anny")
    pytest.importorskip("embreex")
    return Body()
