"""A GPU's tests need a Ray, which RLlib asks for the GPU's number."""

import pytest
from on_cuda import ON


@pytest.fixture(autouse=True)
def ray_on_gpu(request):
    if ON == "cuda":
        request.getfixturevalue("ray_session")
