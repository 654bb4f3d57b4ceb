// Whether what needs CUDA's own headers is compiled: libtorch is a CUDA build, and its headers find all of CUDA's that
// they include. A Python's torch comes without some of them (crt/ and nv/ have wheels of their own, which the set-up
// fetches).
#pragma once

#if defined(CLEFT_TORCH_CUDA) && __has_include(<cuda_runtime_api.h>) && __has_include(<crt/host_config.h>) && \
    __has_include(<nv/target>)
#define CLEFT_CUDA_HEADERS
#endif
