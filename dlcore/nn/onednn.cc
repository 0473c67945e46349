// The three parts of a convolution of float32 numbers by oneDNN, as calls that XLA makes on a CPU.
//
// oneDNN works on one thread here. The rows of the batch are split over XLA's own threads, so that
// no second pool of threads competes with them. Arrays lie channels-last, as in JAX: images
// (B, I..., C), kernels (F..., C, K), outputs (B, O..., K).

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = memory::dims;
using Sizes = ffi::Span<const int64_t>;
using Floats = ffi::Buffer<ffi::F32>;

enum class Part { kForward, kToImage, kToKernel };

// oneDNN asks OpenMP how many threads it may use; others in this process, such as PyTorch, get
// their number back.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// Memory that oneDNN likes to be aligned to a cache line.
class Scratch {
 public:
  void* Get(size_t bytes) {
    if (bytes + 64 > data_.size()) data_.resize(bytes + 64);
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(data_.data()) + 63) & ~63ull);
  }

 private:
  std::vector<char> data_;
};

struct Geometry {
  Dims image, kernel, output;  // as in JAX, channels-last
  Dims strides, start, end, dilation;
};

// A compiled primitive, and how its arrays lie. Its kernel is ordered as the primitive likes it.
struct Plan {
  dnnl::primitive primitive;
  memory::desc image, output, given_kernel, kernel, scratch;
};

// (N, D..., C) in memory, told to oneDNN as N, C, D...
memory::desc ChannelsLast(const Dims& sizes) {
  Dims dims{sizes.front(), sizes.back()}, strides(sizes.size());
  dims.insert(dims.end(), sizes.begin() + 1, sizes.end() - 1);
  int64_t stride = sizes.back();
  strides[1] = 1;
  for (size_t i = dims.size(); i-- > 2; stride *= dims[i]) strides[i] = stride;
  strides[0] = stride;
  return {dims, memory::data_type::f32, strides};
}

// (F..., C, K) in memory, told to oneDNN as K, C, F...
memory::desc Kernel(const Dims& sizes) {
  const size_t n = sizes.size() - 2;
  Dims dims{sizes[n + 1], sizes[n]}, strides(n + 2);
  dims.insert(dims.end(), sizes.begin(), sizes.begin() + n);
  strides[0] = 1;
  strides[1] = sizes[n + 1];
  int64_t stride = sizes[n] * sizes[n + 1];
  for (size_t i = n + 2; i-- > 2; stride *= dims[i]) strides[i] = stride;
  return {dims, memory::data_type::f32, strides};
}

Plan MakePlan(Part part, const Geometry& g) {
  Plan plan;
  plan.image = ChannelsLast(g.image);
  plan.output = ChannelsLast(g.output);
  plan.given_kernel = Kernel(g.kernel);
  const memory::desc any(plan.given_kernel.get_dims(), memory::data_type::f32,
                         memory::format_tag::any);
  Dims holes = g.dilation;
  for (int64_t& hole : holes) --hole;
  dnnl::primitive_attr options;
  options.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
  dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, plan.image, any, plan.output, g.strides,
      holes, g.start, g.end, options);
  if (part == Part::kForward) {
    plan.kernel = forward.weights_desc();
    plan.scratch = forward.scratchpad_desc();
    plan.primitive = dnnl::convolution_forward(forward);
  } else if (part == Part::kToImage) {
    dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), direct, plan.image, any, plan.output, g.strides, holes, g.start, g.end, forward,
        options);
    plan.kernel = backward.weights_desc();
    plan.scratch = backward.scratchpad_desc();
    plan.primitive = dnnl::convolution_backward_data(backward);
  } else {
    dnnl::convolution_backward_weights::primitive_desc backward(
        Engine(), direct, plan.image, any, plan.output, g.strides, holes, g.start, g.end, forward,
        options);
    plan.kernel = backward.diff_weights_desc();
    plan.scratch = backward.scratchpad_desc();
    plan.primitive = dnnl::convolution_backward_weights(backward);
  }
  return plan;
}

// Plans are made once in a process: one for each shape.
const Plan& PlanOf(Part part, const Geometry& g) {
  static auto* lock = new std::mutex;
  static auto* plans = new std::map<std::vector<Dims>, std::unique_ptr<Plan>>;
  const std::vector<Dims> key{{static_cast<int64_t>(part)}, g.image, g.kernel, g.output,
                              g.strides, g.start, g.end, g.dilation};
  std::lock_guard<std::mutex> held(*lock);
  auto& plan = (*plans)[key];
  if (!plan) plan = std::make_unique<Plan>(MakePlan(part, g));
  return *plan;
}

// Runs work(0) ... work(count - 1). The caller works too, and waits only for what others have begun,
// so that calls from all threads of the pool at once come to an end. The first error is thrown.
template <class Work>
void InParallel(ffi::ThreadPool& pool, int64_t count, Work work) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::exception_ptr error;
    std::mutex lock;
    std::condition_variable changed;
  };
  auto state = std::make_shared<State>();
  // One that comes too late finds nothing to do, and does not touch `work`, which is gone then.
  auto help = [state, count, &work] {
    for (int64_t i; (i = state->next++) < count;) {
      std::exception_ptr error;
      try {
        work(i);
      } catch (...) {
        error = std::current_exception();
      }
      std::lock_guard<std::mutex> held(state->lock);
      if (error && !state->error) state->error = error;
      if (++state->done == count) state->changed.notify_all();
    }
  };
  for (int64_t i = 1; i < count; ++i) pool.Schedule(decltype(help)(help));
  help();
  std::unique_lock<std::mutex> held(state->lock);
  state->changed.wait(held, [&] { return state->done == count; });
  if (state->error) std::rethrow_exception(state->error);
}

void Execute(const Plan& plan, Part part, float* image, float* kernel, float* output) {
  thread_local dnnl::stream stream(Engine());
  thread_local Scratch scratch;
  const bool forward = part == Part::kForward;
  const int image_role = part == Part::kToImage ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC;
  const int kernel_role = part == Part::kToKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS;
  const int output_role = forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
  plan.primitive.execute(
      stream, {{image_role, memory(plan.image, Engine(), image)},
               {kernel_role, memory(plan.kernel, Engine(), kernel)},
               {output_role, memory(plan.output, Engine(), output)},
               {DNNL_ARG_SCRATCHPAD,
                memory(plan.scratch, Engine(), scratch.Get(plan.scratch.get_size()))}});
}

void Reorder(const memory::desc& from, float* source, const memory::desc& to, float* target) {
  dnnl::stream stream(Engine());
  memory before(from, Engine(), source), after(to, Engine(), target);
  dnnl::reorder(before, after).execute(stream, before, after);
}

int64_t Product(const Dims& sizes) {
  int64_t product = 1;
  for (int64_t size : sizes) product *= size;
  return product;
}

// Computes the part whose array is not const in effect; the other two are read.
void Convolve(Part part, ffi::ThreadPool pool, const Geometry& g, float* image, float* kernel,
              float* output) {
  const int64_t batch = g.image[0];
  const int64_t count = std::min(std::max<int64_t>(pool.num_threads(), 1), batch);
  const int64_t pixels = Product(g.image) / batch, results = Product(g.output) / batch;
  const int64_t weights = Product(g.kernel);
  OneThread one;

  auto plan_of_rows = [&](int64_t rows) -> const Plan& {
    Geometry some = g;
    some.image[0] = some.output[0] = rows;
    return PlanOf(part, some);
  };
  // Plans for other numbers of rows may order the kernel in another way.
  std::map<const Plan*, std::shared_ptr<Scratch>> ordered;
  auto plan_of_share = [&](int64_t i) -> const Plan& {
    return plan_of_rows(batch * (i + 1) / count - batch * i / count);
  };
  if (part != Part::kToKernel) {
    for (int64_t i = 0; i < count; ++i) {
      const Plan& plan = plan_of_share(i);
      auto& memory = ordered[&plan];
      if (memory) continue;
      memory = std::make_shared<Scratch>();
      Reorder(plan.given_kernel, kernel, plan.kernel,
              static_cast<float*>(memory->Get(plan.kernel.get_size())));
    }
  }
  std::vector<std::vector<float>> sums(part == Part::kToKernel ? count : 0);
  InParallel(pool, count, [&](int64_t i) {
    OneThread one;
    const Plan& plan = plan_of_share(i);
    const int64_t first = batch * i / count;
    float *rows = image + first * pixels, *out = output + first * results;
    if (part == Part::kToKernel) {
      thread_local Scratch own;
      auto* sum = static_cast<float*>(own.Get(plan.kernel.get_size()));
      Execute(plan, part, rows, sum, out);
      if (i > 0) sums[i].resize(weights);
      Reorder(plan.kernel, sum, plan.given_kernel, i > 0 ? sums[i].data() : kernel);
    } else {
      const size_t bytes = plan.kernel.get_size();
      Execute(plan, part, rows, static_cast<float*>(ordered.at(&plan)->Get(bytes)), out);
    }
  });
  for (size_t i = 1; i < sums.size(); ++i) {
    for (int64_t j = 0; j < weights; ++j) kernel[j] += sums[i][j];
  }
}

Dims DimsOf(Sizes sizes) { return {sizes.begin(), sizes.end()}; }

// A call of two arrays; which of the three the result is depends on the part.
template <Part part>
ffi::Error Call(ffi::ThreadPool pool, Floats a, Floats b, ffi::Result<Floats> result, Sizes strides,
                Sizes start, Sizes end, Sizes dilation) {
  constexpr bool forward = part == Part::kForward, to_image = part == Part::kToImage;
  Floats& image = to_image ? *result : a;
  Floats& kernel = forward ? b : to_image ? a : *result;
  Floats& output = forward ? *result : b;
  try {
    Convolve(part, pool,
             {DimsOf(image.dimensions()), DimsOf(kernel.dimensions()), DimsOf(output.dimensions()),
              DimsOf(strides), DimsOf(start), DimsOf(end), DimsOf(dilation)},
             image.typed_data(), kernel.typed_data(), output.typed_data());
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInternal, std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

auto Signature() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Ret<Floats>()
      .Attr<Sizes>("strides")
      .Attr<Sizes>("start")
      .Attr<Sizes>("end")
      .Attr<Sizes>("dilation");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(onednn_forward, Call<Part::kForward>, Signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(onednn_to_image, Call<Part::kToImage>, Signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(onednn_to_kernel, Call<Part::kToKernel>, Signature());
