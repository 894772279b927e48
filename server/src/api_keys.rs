//! Who may ask: keys that clients send, known by their SHA-256 alone.
//!
//! A key is 256 random bits, so a fast hash is enough: there is nothing to guess. What a client
//! sent is hashed and compared with every key in constant time. Neither keys nor hashes are ever
//! logged, and no `Debug` shows them.

mod file;
mod new_key;
mod rate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

pub use self::file::{Day, DayError, KeyFileError};
pub use self::new_key::{NewKey, NewKeyError};
use self::rate::KeyRate;

/// What every key begins with, so that people and scanners of secrets recognise one.
pub const KEY_PREFIX: &str = "densecl_";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// As the file of keys has it: 64 hexadecimal digits.
    fn hexadecimal(&self) -> String {
        let [high, low] = [0, 16].map(|from| u128::from_be_bytes(std::array::from_fn(|byte| self.0[from + byte])));
        format!("{high:032x}{low:032x}")
    }

    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// A key that is good for something.
#[derive(Debug)]
pub struct ApiKey {
    name: Arc<str>,
    digest: KeyDigest,
    is_admin: bool,
    /// The last day that it is good for.
    expires: Option<Day>,
    rate: Option<KeyRate>,
}

impl ApiKey {
    /// Its name, for the log and the metrics.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it is good for loading and unloading models.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Takes a request's token of the key's own rate; `None` if it has none.
    ///
    /// # Errors
    /// With the time until there is one.
    pub fn take_turn(&self) -> Option<Result<(), Duration>> {
        self.rate.as_ref().map(KeyRate::check)
    }
}

/// Why a request is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// There is no key in it.
    #[error("this request came without an API key")]
    Missing,
    /// The key does not exist, or not any more.
    #[error("the API key is none of this server's")]
    Unknown,
    /// The key's last day has passed.
    #[error("the API key has expired")]
    Expired,
}

/// The keys of a file, which can be read again while requests are answered.
pub struct ApiKeys {
    file: PathBuf,
    keys: RwLock<Arc<[Arc<ApiKey>]>>,
}

impl ApiKeys {
    /// Reads the keys of a file.
    ///
    /// # Errors
    /// If it cannot be read, or says something that is not meant to be said.
    pub fn open(file: &Path) -> Result<Self, KeyFileError> {
        let keys = file::read(file, &[])?;
        Ok(Self { file: file.to_owned(), keys: RwLock::new(keys.into()) })
    }

    /// Reads the file again. A key that is still there keeps what it has used up of its rate.
    /// Returns the names of the keys that are gone.
    ///
    /// # Errors
    /// As [`ApiKeys::open`]; then the old keys stay.
    pub fn reload(&self) -> Result<Vec<Arc<str>>, KeyFileError> {
        let old = self.all();
        let new = file::read(&self.file, &old)?;
        let is_gone = |key: &&Arc<ApiKey>| new.iter().all(|other| other.name != key.name);
        let gone = old.iter().filter(is_gone).map(|key| Arc::clone(&key.name)).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        Ok(gone)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// The key that was sent, if it is good on this day.
    ///
    /// # Errors
    /// If it is none of these, or too old.
    pub fn check(&self, sent: &[u8], now: SystemTime) -> Result<Arc<ApiKey>, KeyRefusal> {
        let key = find(&self.all(), KeyDigest::of(sent)).ok_or(KeyRefusal::Unknown)?;
        if key.expires.is_some_and(|day| day.is_over(now)) { Err(KeyRefusal::Expired) } else { Ok(key) }
    }

    fn all(&self) -> Arc<[Arc<ApiKey>]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Compares with every key, wherever the right one is, and every byte of it.
fn find(keys: &[Arc<ApiKey>], sent: KeyDigest) -> Option<Arc<ApiKey>> {
    const NONE: u64 = u64::MAX;
    let mut found = NONE;
    for (index, key) in (0_u64..).zip(keys) {
        found.conditional_assign(&index, key.digest.0.ct_eq(&sent.0));
    }
    keys.get(usize::try_from(found).unwrap_or(usize::MAX)).cloned()
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "api_keys/tests.rs"]
mod tests;
