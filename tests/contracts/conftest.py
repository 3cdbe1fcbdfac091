from tests.runtime.conftest import digits_engine as digits_engine
