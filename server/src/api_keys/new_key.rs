//! Making a key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::file::is_name;
use super::rate::RateSetting;
use super::{Day, KEY_PREFIX, KeyDigest};

/// A key that did not exist before. It is shown once and kept nowhere.
pub struct NewKey {
    secret: String,
    entry: Entry,
}

/// What the file of keys is to say of it.
struct Entry {
    name: String,
    is_admin: bool,
    rate: Option<RateSetting>,
    expires: Option<Day>,
}

/// There is no such key.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The name is not fit for logs and metrics.
    #[error("a key's name has 1 to 64 letters, digits, and any of . _ - @")]
    Name,
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

impl NewKey {
    /// Makes a key from 256 random bits.
    ///
    /// # Errors
    /// If the name is no name, or there are no random numbers.
    pub fn generate(name: &str) -> Result<Self, NewKeyError> {
        if !is_name(name) {
            return Err(NewKeyError::Name);
        }
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(NewKeyError::Random)?;
        let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bits));
        Ok(Self { secret, entry: Entry { name: name.to_owned(), is_admin: false, rate: None, expires: None } })
    }

    /// Good for loading and unloading models, too.
    #[must_use]
    pub fn for_administration(mut self) -> Self {
        self.entry.is_admin = true;
        self
    }

    /// Good for so many requests.
    #[must_use]
    pub fn with_rate(mut self, rate: crate::config::Rate, burst: Option<std::num::NonZeroU32>) -> Self {
        self.entry.rate = Some(RateSetting { rate, burst });
        self
    }

    /// Good until the end of a day.
    #[must_use]
    pub fn until(mut self, day: Day) -> Self {
        self.entry.expires = Some(day);
        self
    }

    /// The key itself.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The entry for the file, in TOML; it does not hold the key.
    pub fn entry(&self) -> String {
        let Entry { name, is_admin, rate, expires } = &self.entry;
        let sha256 = format!("sha256 = \"{}\"", KeyDigest::of(self.secret.as_bytes()).hexadecimal());
        let mut lines = vec!["[[key]]".to_owned(), format!("name = \"{name}\""), sha256];
        if *is_admin {
            lines.push("admin = true".to_owned());
        }
        if let Some(RateSetting { rate, burst }) = rate {
            lines.push(format!("rate = \"{rate}\""));
            lines.extend(burst.map(|burst| format!("burst = {burst}")));
        }
        lines.extend(expires.map(|day| format!("expires = {day}")));
        lines.join("\n")
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("name", &self.entry.name).finish_non_exhaustive()
    }
}
