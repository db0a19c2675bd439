# The kernels for NVIDIA GPUs, in the same library: who uses it links and ships one file, and a build
# without them is that file without them.
#
# A toolkit that is not where CMake looks is named by the environment variables CUDACXX (its nvcc)
# and CUDAToolkit_ROOT. find_package(CUDAToolkit) is not used: nothing but the .cu files sees the
# toolkit, and nvcc knows its own.

# The runtime is linked statically, and it opens the driver when it is first called: the library
# loads, and says that there is no GPU, on a machine that has neither driver nor toolkit.
set(CMAKE_CUDA_ARCHITECTURES "${OAR_CUDA_ARCHS}")
# The same source makes the same bytes, wherever it lies. So there are no debug symbols of the .cu
# files' host code, which would name nvcc's intermediate files; these stand beside the objects, named
# after them, and not at random in /tmp; and the .cu files have no unnamed namespaces, into whose
# names nvcc puts a hash of the path.
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -DNDEBUG" CACHE STRING "Flags for .cu files")
enable_language(CUDA)

target_sources(oar PRIVATE ${oar_cuda_sources})
set_target_properties(oar PROPERTIES
  CUDA_ARCHITECTURES "${OAR_CUDA_ARCHS}"
  CUDA_EXTENSIONS OFF
  CUDA_RUNTIME_LIBRARY Static
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_VISIBILITY_PRESET hidden)

# Host code in .cu files is for the CPU that CXXFLAGS names, too. Other flags stay behind: nvcc splits
# a value at its commas and hands it to a shell, which a path in -ffile-prefix-map need not bear; with
# no debug symbols there is no path to map.
separate_arguments(oar_cxx_flags UNIX_COMMAND "${CMAKE_CXX_FLAGS}")
list(FILTER oar_cxx_flags INCLUDE REGEX "^-m[a-z]")
set(oar_host_flags -Wall -Wextra -Wshadow ${oar_cxx_flags})
list(TRANSFORM oar_host_flags PREPEND -Xcompiler=)
target_compile_options(oar PRIVATE
  "$<$<COMPILE_LANGUAGE:CUDA>:--objdir-as-tempdir;${oar_host_flags}>")

# "sm_80 sm_90 compute_90": what oar.build_info() reports.
foreach(arch IN LISTS OAR_CUDA_ARCHS)
  if(arch MATCHES "^([0-9]+[af]?)-virtual$")
    list(APPEND oar_cuda_names compute_${CMAKE_MATCH_1})
  elseif(arch MATCHES "^([0-9]+[af]?)-real$")
    list(APPEND oar_cuda_names sm_${CMAKE_MATCH_1})
  elseif(arch MATCHES "^[0-9]+[af]?$")
    list(APPEND oar_cuda_names sm_${arch} compute_${arch})
  else()
    message(FATAL_ERROR "OAR_CUDA_ARCHS: '${arch}' is not like 80, 80-real or 90-virtual")
  endif()
endforeach()
list(JOIN oar_cuda_names " " oar_cuda_names)
