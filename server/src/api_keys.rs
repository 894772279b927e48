//! API keys of clients. The server knows only their SHA-256.
//!
//! A key is 256 random bits, so a fast hash is enough: there is nothing to guess. The key of a
//! request is hashed and compared with every known one in constant time. Neither keys nor hashes are
//! ever logged, and no `Debug` shows them.

mod file;
mod metrics;
mod new_key;
mod rate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub use self::file::{Day, DayError, KeyFileError};
pub use self::metrics::KeyMetrics;
pub use self::new_key::{NewKey, NewKeyError};
use self::rate::KeyRate;

/// Prefix of every key, so that people and scanners of secrets recognise one.
pub const KEY_PREFIX: &str = "densecl_";

/// The SHA-256 of a key. It has no `PartialEq`, so that digests are compared in constant time alone.
#[derive(Clone, Copy)]
struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Writes 64 hexadecimal digits, as in the file of keys.
    fn to_hex(self) -> String {
        let [high, low] = [0, 16].map(|from| u128::from_be_bytes(std::array::from_fn(|byte| self.0[from + byte])));
        format!("{high:032x}{low:032x}")
    }

    fn from_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl ConstantTimeEq for KeyDigest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// A key of the file.
#[derive(Debug)]
pub struct ApiKey {
    name: Arc<str>,
    digest: KeyDigest,
    is_admin: bool,
    /// Last day on which the key is valid.
    expires: Option<Day>,
    rate: Option<KeyRate>,
}

impl ApiKey {
    /// Name of the key, for the log and the metrics.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// True if the key allows loading and unloading models.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Takes one token from the key's own rate limit; `None` if the key has none.
    ///
    /// # Errors
    /// The time until the next token, if there is none now.
    pub fn take_token(&self) -> Option<Result<(), Duration>> {
        self.rate.as_ref().map(KeyRate::take_token)
    }
}

/// Reason why a request is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The request has no key.
    #[error("this request came without an API key")]
    Missing,
    /// The key does not exist, or no longer exists.
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
    /// If the file cannot be read, or is not a valid file of keys.
    pub fn open(file: &Path) -> Result<Self, KeyFileError> {
        let keys = file::read(file, &[])?;
        Ok(Self { file: file.to_owned(), keys: RwLock::new(keys.into()) })
    }

    /// Reads the file again and returns the names of the keys that were removed. A key that is still
    /// there keeps the state of its rate limit.
    ///
    /// # Errors
    /// Those of [`ApiKeys::open`]; the old keys stay.
    pub fn reload(&self) -> Result<Vec<Arc<str>>, KeyFileError> {
        let old = self.all();
        let new = file::read(&self.file, &old)?;
        let is_removed = |key: &&Arc<ApiKey>| new.iter().all(|other| other.name != key.name);
        let removed = old.iter().filter(is_removed).map(|key| Arc::clone(&key.name)).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        Ok(removed)
    }

    /// Number of keys.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Finds the key that was sent.
    ///
    /// # Errors
    /// If there is no such key, or it has expired.
    pub fn authenticate(&self, sent: &[u8], now: SystemTime) -> Result<Arc<ApiKey>, KeyRefusal> {
        let key = find(&self.all(), KeyDigest::from_key(sent)).ok_or(KeyRefusal::Unknown)?;
        if key.expires.is_some_and(|day| day.is_over(now)) { Err(KeyRefusal::Expired) } else { Ok(key) }
    }

    fn all(&self) -> Arc<[Arc<ApiKey>]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Finds a key in constant time: compares every byte of every key, wherever the right one is.
fn find(keys: &[Arc<ApiKey>], sent: KeyDigest) -> Option<Arc<ApiKey>> {
    const NONE: u64 = u64::MAX;
    let mut found = NONE;
    for (index, key) in (0_u64..).zip(keys) {
        found.conditional_assign(&index, key.digest.ct_eq(&sent));
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
