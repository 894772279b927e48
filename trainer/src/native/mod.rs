//! The calls into libtorch that tch lacks: updates of whole lists of tensors in one pass, autocast
//! to bfloat16, and [groups of processes](process_group).
//!
//! All unsafe code of the trainer but the loading of CUDA is here.

pub mod process_group;

use std::ffi::{CStr, c_char, c_int};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

/// An error message of libtorch.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct NativeError(String);

#[expect(unsafe_code, reason = "functions of native/ops.cpp")]
mod ffi {
    use super::{C_tensor, c_char, c_int};

    unsafe extern "C" {
        pub(super) fn densecl_sgd(
            parameters: *const *mut C_tensor,
            gradients: *const *mut C_tensor,
            velocities: *const *mut C_tensor,
            count: usize,
            learning_rate: f64,
            momentum: f64,
            weight_decay: f64,
        ) -> *mut c_char;
        pub(super) fn densecl_lerp(
            targets: *const *mut C_tensor,
            sources: *const *mut C_tensor,
            count: usize,
            weight: f64,
        ) -> *mut c_char;
        pub(super) fn densecl_forget_gradients(parameters: *const *mut C_tensor, count: usize) -> *mut c_char;
        pub(super) fn densecl_autocast_enter(cuda: c_int) -> *mut c_char;
        pub(super) fn densecl_autocast_leave(cuda: c_int) -> *mut c_char;
        pub(super) fn densecl_free(message: *mut c_char);
    }
}

/// Coefficients of one update by gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// η.
    pub learning_rate: f64,
    /// μ.
    pub momentum: f64,
    /// w.
    pub weight_decay: f64,
}

/// `v ← μ·v + g + w·θ`, `θ ← θ − η·v` for every parameter θ with gradient g and velocity v, in one
/// pass over memory.
///
/// # Errors
/// If the lists differ in length, or tensors in shape, type or device.
#[expect(unsafe_code, reason = "passes lists of tensors to libtorch")]
pub fn sgd(
    parameters: &[Tensor],
    gradients: &[Tensor],
    velocities: &[Tensor],
    step: SgdStep,
) -> Result<(), NativeError> {
    same_length(parameters, gradients)?;
    same_length(parameters, velocities)?;
    let SgdStep { learning_rate, momentum, weight_decay } = step;
    let (p, g, v) = (pointers(parameters), pointers(gradients), pointers(velocities));
    // SAFETY: three lists of as many live tensors; the callee writes to their storage alone, which
    // tch shares freely between handles anyway.
    let message =
        unsafe { ffi::densecl_sgd(p.as_ptr(), g.as_ptr(), v.as_ptr(), p.len(), learning_rate, momentum, weight_decay) };
    check(message)
}

/// `target ← target + weight·(source − target)` for each pair, in one pass over memory.
///
/// # Errors
/// If the lists differ in length, or tensors in shape, type or device.
#[expect(unsafe_code, reason = "passes lists of tensors to libtorch")]
pub fn lerp(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<(), NativeError> {
    same_length(targets, sources)?;
    let (t, s) = (pointers(targets), pointers(sources));
    // SAFETY: two lists of as many live tensors; see `sgd`.
    check(unsafe { ffi::densecl_lerp(t.as_ptr(), s.as_ptr(), t.len(), weight) })
}

/// Makes the parameters' gradients undefined: the next backward pass stores its own instead of
/// adding to zeros.
///
/// # Errors
/// If a tensor can have no gradient.
#[expect(unsafe_code, reason = "passes a list of tensors to libtorch")]
pub fn forget_gradients(parameters: &[Tensor]) -> Result<(), NativeError> {
    let p = pointers(parameters);
    // SAFETY: a list of live tensors; only their gradients' handles are dropped.
    check(unsafe { ffi::densecl_forget_gradients(p.as_ptr(), p.len()) })
}

/// Runs `body` with this thread's convolutions and matrix products in bfloat16; sums, norms and
/// the stored weights stay in float32.
///
/// # Errors
/// If libtorch refuses.
pub fn autocast_bf16<T>(device: Device, body: impl FnOnce() -> T) -> Result<T, NativeError> {
    let scope = Autocast::enter(device)?;
    let result = body();
    drop(scope);
    Ok(result)
}

/// Autocast until it is dropped.
struct Autocast {
    cuda: c_int,
}

impl Autocast {
    #[expect(unsafe_code, reason = "switches a thread-local setting of libtorch")]
    fn enter(device: Device) -> Result<Self, NativeError> {
        let cuda = c_int::from(device.is_cuda());
        // SAFETY: no pointer is passed.
        check(unsafe { ffi::densecl_autocast_enter(cuda) })?;
        Ok(Self { cuda })
    }
}

impl Drop for Autocast {
    #[expect(unsafe_code, reason = "switches a thread-local setting of libtorch back")]
    fn drop(&mut self) {
        // SAFETY: no pointer is passed.
        if let Err(error) = check(unsafe { ffi::densecl_autocast_leave(self.cuda) }) {
            tracing::warn!(%error, "autocast could not be switched off");
        }
    }
}

fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect()
}

fn same_length(a: &[Tensor], b: &[Tensor]) -> Result<(), NativeError> {
    if a.len() == b.len() { Ok(()) } else { Err(NativeError(format!("lists of {} and {} tensors", a.len(), b.len()))) }
}

#[expect(unsafe_code, reason = "takes over a message from native/ops.cpp")]
fn check(message: *mut c_char) -> Result<(), NativeError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message is a C string that its receiver owns and frees once.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is not used afterwards.
    unsafe { ffi::densecl_free(message) };
    Err(NativeError(text))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Double, Device::Cpu))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn sgd_and_lerp_compute_their_formulas() {
        let sizes: [&[i64]; 3] = [&[3, 2, 3, 3], &[7], &[1]];
        let lists: [Vec<Tensor>; 3] = std::array::from_fn(|_| sizes.iter().map(|size| random(size)).collect());
        let [p, g, v] = &lists;
        let velocity: Vec<_> = (0..3).map(|i| &v[i] * 0.9 + &g[i] + &p[i] * 0.01).collect();
        let moved: Vec<_> = (0..3).map(|i| &p[i] - &velocity[i] * 0.1).collect();
        sgd(p, g, v, SgdStep { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01 }).unwrap();
        for i in 0..3 {
            assert!(difference(&p[i], &moved[i]) < 1e-14 && difference(&v[i], &velocity[i]) < 1e-14);
        }
        let between: Vec<_> = (0..3).map(|i| &p[i] * 0.75 + &g[i] * 0.25).collect();
        lerp(p, g, 0.25).unwrap();
        assert!((0..3).all(|i| difference(&p[i], &between[i]) < 1e-14));
    }

    #[test]
    fn errors_of_libtorch_are_returned() {
        let [a, b] = [[random(&[2])], [random(&[3])]];
        assert!(lerp(&a, &b, 0.5).unwrap_err().to_string().contains("libtorch"));
        assert!(lerp(&a, &[], 0.5).is_err());
    }

    #[test]
    fn autocast_is_for_its_body_alone() {
        let x = random(&[4, 4]).to_kind(Kind::Float);
        let product = autocast_bf16(Device::Cpu, || x.matmul(&x)).unwrap();
        assert_eq!(product.kind(), Kind::BFloat16);
        assert_eq!(x.matmul(&x).kind(), Kind::Float);
        let caught = std::panic::catch_unwind(|| autocast_bf16(Device::Cpu, || panic!("in the body")));
        assert!(caught.is_err());
        assert_eq!(x.matmul(&x).kind(), Kind::Float, "also after a panic");
    }

    #[test]
    fn forgotten_gradients_are_undefined() {
        let p = [random(&[2]).set_requires_grad(true)];
        p[0].sum(Kind::Double).backward();
        assert!(p[0].grad().defined());
        forget_gradients(&p).unwrap();
        assert!(!p[0].grad().defined());
    }
}
