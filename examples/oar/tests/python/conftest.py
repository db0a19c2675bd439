"""A build without CUDA has nothing that test_cuda.py could test; test_cuda_absent.py holds for all."""

import oar

collect_ignore = [] if oar.build_info()["cuda_archs"] else ["test_cuda.py"]
