"""A build without CUDA has nothing for test_cuda.py to test; test_cuda_absent.py is for all."""

import oar

collect_ignore = [] if oar.build_info()["cuda_archs"] else ["test_cuda.py"]
