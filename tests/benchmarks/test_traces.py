"""What is read from a profiler's trace, on one of two steps that is written by hand."""

from typing import Any

import pytest

from benchmarks.speed.traces import BUFFERS, STEP, group_of, longest_kernels, summarise


def event(category: str, name: str, start: float, us: float, correlation: int | None = None) -> dict[str, Any]:
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": us, "args": args}


CONV = "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc"
SGD = "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::FusedSgdMathFunctor<float, 2>>"
EVENTS = [
    event("cuda_runtime", "cudaDeviceSynchronize", 0, 5),  # before the steps
    event("user_annotation", STEP, 100, 400),
    event("cpu_op", BUFFERS, 110, 20),
    event("cuda_runtime", "cudaLaunchKernel", 115, 2, 1),
    event("cuda_runtime", "cudaLaunchKernel", 140, 2, 2),
    event("cpu_op", "aten::_local_scalar_dense", 200, 50),
    event("cuda_runtime", "cudaStreamSynchronize", 210, 30),
    event("user_annotation", "Optimizer.step#SGD.step", 300, 40),
    event("cuda_runtime", "cudaLaunchKernel", 310, 2, 3),
    event("user_annotation", "Optimizer.zero_grad#SGD.zero_grad", 350, 10),
    event("user_annotation", STEP, 600, 200),
    event("cuda_runtime", "cudaLaunchKernel", 640, 2, 4),
    event("cuda_runtime", "cudaDeviceSynchronize", 900, 5),  # after them
    event("gpu_user_annotation", STEP, 120, 1000),
    event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 120, 10, 1),
    event("kernel", CONV, 150, 100, 2),
    event("kernel", "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>", 200, 70, 5),  # on another stream, half beside it
    event("kernel", SGD, 350, 60, 3),
    event("kernel", CONV, 700, 300, 4),
    {"ph": "s", "cat": "ac2g", "name": "ac2g", "ts": 115, "id": 1},
]


def test_what_a_step_is_made_of() -> None:
    found = summarise({"traceEvents": EVENTS})
    expected = {
        "device_ms, convolution and matmul": 0.4 / 2,
        "device_ms, normalisation": 0.07 / 2,
        "device_ms, copies and casts": 0.01 / 2,
        "device_ms, optimizer": 0.06 / 2,
        "device_ms, elementwise": 0,
        "device_ms, other": 0,
        "device_ms, all": 0.54 / 2,
        # 130 to 150, 270 to 350, 410 to 700
        "idle_ms": (0.02 + 0.08 + 0.29) / 2,
        "kernels": 2,
        "copies": 0.5,
        "calls, cudaStreamSynchronize": 0.5,
        "calls, cudaDeviceSynchronize": 0,
        "calls, cudaEventSynchronize": 0,
        "calls, aten::_local_scalar_dense": 0.5,
        "cpu_ms, step": 0.6 / 2,
        "cpu_ms, optimizer": 0.04 / 2,
        "cpu_ms, zero_grad": 0.01 / 2,
        "cpu_ms, buffers": 0.02 / 2,
    }
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_the_longest_kernels_come_first() -> None:
    longest = longest_kernels({"traceEvents": EVENTS}, count=2)
    assert longest == [
        (CONV, pytest.approx(0.2)),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>", pytest.approx(0.035)),
    ]


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no step of the trace is annotated"):
        summarise({"traceEvents": EVENTS[:1]})


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT", "convolution and matmul"),
        ("cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816wgrad_optimized>", "convolution and matmul"),
        ("pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", "convolution and matmul"),
        ("void at::native::batch_norm_collect_statistics_channels_last_kernel<>", "normalisation"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>", "normalisation"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copies and casts"),
        (
            "void at::native::vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda>",
            "copies and casts",
        ),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>", "copies and casts"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>", "elementwise"),
        ("spin_kernel", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(name: str, group: str) -> None:
    assert group_of(name) == group
