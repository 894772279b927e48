//! libtorch's process groups: several processes that sum, gather and exchange tensors.
//!
//! Collectives are started here; the caller waits for them in short intervals, so that it can give
//! up on one that will never end. Every process of a group starts the same collectives in the same
//! order. The roles of the processes are in [`crate::distributed`].

use std::ffi::{CString, c_char, c_int};
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::{self, NonNull};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Tensor;
use torch_sys::C_tensor;

use super::{NativeError, check};

/// The shim around NCCL, looked for where the loader looks.
const NCCL_LIBRARY: &str = "libdensecl_nccl.so";

#[expect(unsafe_code, reason = "functions of native/process_group.cpp")]
mod ffi {
    use super::{C_tensor, Opaque, c_char, c_int};

    unsafe extern "C" {
        pub(super) fn densecl_store_connect(
            address: *const c_char,
            port: u16,
            open: c_int,
            prefix: *const c_char,
            timeout_ms: i64,
            store: *mut *mut Opaque,
        ) -> *mut c_char;
        pub(super) fn densecl_store_meet(
            store: *const Opaque,
            rank: c_int,
            size: c_int,
            timeout_ms: i64,
            here: *mut c_int,
        ) -> *mut c_char;
        pub(super) fn densecl_store_free(store: *mut Opaque);
        pub(super) fn densecl_gloo_connect(
            store: *const Opaque,
            rank: c_int,
            size: c_int,
            interface: *const c_char,
            address: *const c_char,
            connect_timeout_ms: i64,
            timeout_ms: i64,
            group: *mut *mut Opaque,
        ) -> *mut c_char;
        pub(super) fn densecl_group_free(group: *mut Opaque);
        pub(super) fn densecl_group_sum(
            group: *const Opaque,
            tensor: *const C_tensor,
            pending: *mut *mut Opaque,
        ) -> *mut c_char;
        pub(super) fn densecl_group_gather(
            group: *const Opaque,
            output: *const C_tensor,
            input: *const C_tensor,
            pending: *mut *mut Opaque,
        ) -> *mut c_char;
        pub(super) fn densecl_group_exchange(
            group: *const Opaque,
            output: *const C_tensor,
            input: *const C_tensor,
            received: *const i64,
            sent: *const i64,
            size: usize,
            pending: *mut *mut Opaque,
        ) -> *mut c_char;
        pub(super) fn densecl_pending_wait(pending: *const Opaque, timeout_ms: i64, done: *mut c_int) -> *mut c_char;
        pub(super) fn densecl_pending_free(pending: *mut Opaque);
    }
}

/// An object of `native/process_group.cpp`.
#[repr(C)]
#[derive(Debug)]
struct Opaque {
    _data: [u8; 0],
    _not_send: PhantomData<(*mut u8, PhantomPinned)>,
}

/// Rank of a process among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRank {
    /// Counted from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
}

/// Address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// Name or address of its machine.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Prefix of the keys, which separates runs that share a store.
    pub prefix: String,
}

/// Key-value store at which processes find each other.
#[derive(Debug)]
pub struct Store(NonNull<Opaque>);

/// Network endpoint at which other processes reach this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalEndpoint {
    /// Through the network interface of this name.
    Interface(String),
    /// At this address or name of this machine.
    Address(String),
}

/// Processes that are connected.
#[derive(Debug)]
pub struct Group {
    group: NonNull<Opaque>,
    size: usize,
}

/// A collective under way.
#[must_use = "a collective has to be waited for"]
#[derive(Debug)]
pub struct Pending(NonNull<Opaque>);

impl Store {
    /// Opens the store, or connects to the one that another process opens.
    ///
    /// # Errors
    /// If the port is taken, or there is no answer within `timeout`.
    #[expect(unsafe_code, reason = "connects to a store")]
    pub fn connect(address: &StoreAddress, open: bool, timeout: Duration) -> Result<Self, NativeError> {
        let (host, prefix) = (c_string(&address.host)?, c_string(&address.prefix)?);
        create(|store| {
            // SAFETY: two C strings that outlive the call, and a place for the result.
            unsafe {
                ffi::densecl_store_connect(
                    host.as_ptr(),
                    address.port,
                    c_int::from(open),
                    prefix.as_ptr(),
                    milliseconds(timeout),
                    store,
                )
            }
        })
        .map(Self)
    }

    /// Registers this process and waits for the others. Returns the ranks that are missing.
    ///
    /// # Errors
    /// If the store goes away.
    #[expect(unsafe_code, reason = "waits for others at a store")]
    pub fn meet(&self, process: ProcessRank, timeout: Duration) -> Result<Vec<usize>, NativeError> {
        let mut here: Vec<c_int> = vec![0; process.size];
        let (rank, size) = c_rank(process)?;
        // SAFETY: a live store, and as many places for results as there are processes.
        let message =
            unsafe { ffi::densecl_store_meet(self.0.as_ptr(), rank, size, milliseconds(timeout), here.as_mut_ptr()) };
        check(message)?;
        Ok((0..process.size).filter(|&rank| here[rank] == 0).collect())
    }
}

impl Drop for Store {
    #[expect(unsafe_code, reason = "frees a store")]
    fn drop(&mut self) {
        // SAFETY: made by `densecl_store_connect`, freed once. Groups share the connection.
        unsafe { ffi::densecl_store_free(self.0.as_ptr()) }
    }
}

impl Group {
    /// Connects processes that have met at a store through Gloo: for tensors on the CPU.
    /// Connecting may take `connect_timeout`, a collective `timeout`.
    ///
    /// # Errors
    /// If another cannot be reached, or there is no such interface or address.
    #[expect(unsafe_code, reason = "connects processes")]
    pub fn gloo(
        store: &Store,
        process: ProcessRank,
        endpoint: &LocalEndpoint,
        [connect_timeout, timeout]: [Duration; 2],
    ) -> Result<Self, NativeError> {
        let (rank, size) = c_rank(process)?;
        let name = c_string(match endpoint {
            LocalEndpoint::Interface(name) | LocalEndpoint::Address(name) => name,
        })?;
        let (interface, address) = match endpoint {
            LocalEndpoint::Interface(_) => (name.as_ptr(), ptr::null()),
            LocalEndpoint::Address(_) => (ptr::null(), name.as_ptr()),
        };
        let [connect_timeout, timeout] = [connect_timeout, timeout].map(milliseconds);
        let store = store.0.as_ptr();
        let group = create(|group| {
            // SAFETY: a live store, one C string that outlives the call, and a place for the result.
            unsafe { ffi::densecl_gloo_connect(store, rank, size, interface, address, connect_timeout, timeout, group) }
        })?;
        Ok(Self { group, size: process.size })
    }

    /// Connects processes that have met at a store through NCCL: for tensors on this GPU of each. The
    /// CUDA half of libtorch is loaded already.
    ///
    /// # Errors
    /// If the library for it is missing, or the GPUs cannot reach each other.
    #[expect(unsafe_code, reason = "loads a library of ours and connects processes")]
    pub fn nccl(store: &Store, process: ProcessRank, gpu: usize, timeout: Duration) -> Result<Self, NativeError> {
        type Connect = unsafe extern "C" fn(*const Opaque, c_int, c_int, c_int, i64, *mut *mut Opaque) -> *mut c_char;
        let failed = |error| {
            let build = "make setup-trainer DEVICE=cuda";
            NativeError(format!(
                "cannot load {NCCL_LIBRARY}, which GPUs talk to each other through: {error}; `{build}` compiles it"
            ))
        };
        // SAFETY: the library is compiled from native/nccl.cpp and has no initialisers of its own.
        let library = unsafe { Library::open(Some(NCCL_LIBRARY), RTLD_NOW | RTLD_GLOBAL) }.map_err(failed)?;
        // SAFETY: that function has this type there.
        let connect = *unsafe { library.get::<Connect>(b"densecl_nccl_connect\0") }.map_err(failed)?;
        // The group's code is in it.
        std::mem::forget(library);
        let ((rank, size), store, timeout) = (c_rank(process)?, store.0.as_ptr(), milliseconds(timeout));
        let gpu = c_int::try_from(gpu).map_err(|_| NativeError(format!("GPU {gpu}")))?;
        // SAFETY: a live store and a place for the result.
        let group = create(|group| unsafe { connect(store, rank, size, gpu, timeout, group) })?;
        Ok(Self { group, size: process.size })
    }

    /// Starts a sum over all processes, in place.
    ///
    /// # Errors
    /// If the tensor is not contiguous, or on a device that the group does not work on.
    #[expect(unsafe_code, reason = "passes a tensor to libtorch")]
    pub fn sum(&self, tensor: &Tensor) -> Result<Pending, NativeError> {
        let group = self.group.as_ptr();
        // SAFETY: a live group and tensor, which the pending collective keeps; so below.
        create(|pending| unsafe { ffi::densecl_group_sum(group, tensor.as_ptr(), pending) }).map(Pending)
    }

    /// Starts to fill `output` with the inputs of all processes, concatenated along the first axis.
    ///
    /// # Errors
    /// If sizes do not fit, or as for [`Group::sum`].
    #[expect(unsafe_code, reason = "passes tensors to libtorch")]
    pub fn gather(&self, output: &Tensor, input: &Tensor) -> Result<Pending, NativeError> {
        let (group, output, input) = (self.group.as_ptr(), output.as_ptr(), input.as_ptr());
        // SAFETY: as in `sum`.
        create(|pending| unsafe { ffi::densecl_group_gather(group, output, input, pending) }).map(Pending)
    }

    /// Starts to send each process its rows of `sent`, and to fill `received` with the rows of the others.
    ///
    /// # Errors
    /// If counts and sizes do not fit, or as for [`Group::sum`].
    #[expect(unsafe_code, reason = "passes tensors to libtorch")]
    pub fn exchange(&self, received: Rows<'_>, sent: Rows<'_>) -> Result<Pending, NativeError> {
        if [received, sent].iter().any(|rows| rows.counts.len() != self.size) {
            return Err(NativeError(format!("counts of rows for another number of processes than {}", self.size)));
        }
        let (group, size) = (self.group.as_ptr(), self.size);
        let (output, input) = (received.tensor.as_ptr(), sent.tensor.as_ptr());
        let (to, from) = (received.counts.as_ptr(), sent.counts.as_ptr());
        // SAFETY: as in `sum`; both lists have one count for each process, as was just checked.
        create(|pending| unsafe { ffi::densecl_group_exchange(group, output, input, to, from, size, pending) })
            .map(Pending)
    }
}

/// Rows of a tensor, grouped by process.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Contiguous, with the rows along the first axis.
    pub tensor: &'a Tensor,
    /// Number of rows of process 0, 1, …, in this order.
    pub counts: &'a [i64],
}

impl Drop for Group {
    #[expect(unsafe_code, reason = "frees a group")]
    fn drop(&mut self) {
        // SAFETY: made by one of the constructors, freed once; this waits for collectives to end.
        unsafe { ffi::densecl_group_free(self.group.as_ptr()) }
    }
}

impl Pending {
    /// Waits for the end for at most `timeout`; returns whether it has come.
    ///
    /// # Errors
    /// If the collective has failed.
    #[expect(unsafe_code, reason = "waits for a collective")]
    pub fn wait(&self, timeout: Duration) -> Result<bool, NativeError> {
        let mut done: c_int = 0;
        // SAFETY: a live collective, and a place for the answer.
        check(unsafe { ffi::densecl_pending_wait(self.0.as_ptr(), milliseconds(timeout), &raw mut done) })?;
        Ok(done != 0)
    }
}

impl Drop for Pending {
    #[expect(unsafe_code, reason = "frees a collective")]
    fn drop(&mut self) {
        // SAFETY: made by one of the group's methods, freed once; libtorch keeps what it still uses.
        unsafe { ffi::densecl_pending_free(self.0.as_ptr()) }
    }
}

/// Calls a constructor of `native/process_group.cpp`.
fn create(make: impl FnOnce(*mut *mut Opaque) -> *mut c_char) -> Result<NonNull<Opaque>, NativeError> {
    let mut object = ptr::null_mut();
    check(make(&raw mut object))?;
    Ok(NonNull::new(object).expect("a constructor that succeeds returns an object"))
}

fn c_string(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError(format!("{text:?} holds a NUL")))
}

fn c_rank(process: ProcessRank) -> Result<(c_int, c_int), NativeError> {
    let number = |value: usize| c_int::try_from(value).map_err(|_| NativeError(format!("{value} processes")));
    Ok((number(process.rank)?, number(process.size)?))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
