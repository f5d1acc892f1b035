//! A cursor in a JSON document that knows where it is.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::RangeInclusive;
use core::time::Duration;

use serde_json::Value;

/// What is wrong with a configuration: one line with the path, the value and what
/// would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConfigError {
    path: String,
    fault: String,
}

impl ConfigError {
    /// An error at `path` (`limits[2].requests`).
    #[must_use]
    pub fn new(path: &str, fault: &str) -> Self {
        Self { path: path.to_string(), fault: fault.to_string() }
    }
}

/// One value of a JSON document, with its path.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Reader<'a> {
    /// The whole document.
    #[must_use]
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// The error that this value is wrong: `fault` says what would be right, and
    /// what stands there is added.
    #[must_use]
    pub fn wrong(&self, fault: &str) -> ConfigError {
        let path = if self.path.is_empty() { "configuration" } else { &self.path };
        ConfigError::new(path, &format!("{fault}, got {}", self.shown()))
    }

    /// The value as one short line.
    fn shown(&self) -> String {
        match self.value {
            Value::Object(fields) if fields.is_empty() => "{}".to_string(),
            Value::Object(_) => "an object".to_string(),
            Value::Array(items) if items.is_empty() => "[]".to_string(),
            Value::Array(items) => format!("a list of {}", items.len()),
            other => {
                let text = other.to_string();
                match text.char_indices().nth(60) {
                    Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
                    None => text,
                }
            }
        }
    }

    /// Refuses anything but an object with some of `fields`.
    ///
    /// # Errors
    ///
    /// Not an object, or a field of another name; the nearest name is suggested.
    pub fn only(&self, fields: &[&str]) -> Result<(), ConfigError> {
        let Value::Object(object) = self.value else {
            return Err(self.wrong("must be an object"));
        };
        for (name, value) in object {
            if fields.contains(&name.as_str()) {
                continue;
            }
            let stranger = Self { value, path: self.join(name) };
            let fault = match nearest(name, fields) {
                Some(near) => format!("is not known; did you mean {near:?}?"),
                None => format!("is not known; known here: {}", fields.join(", ")),
            };
            return Err(ConfigError::new(&stranger.path, &fault));
        }
        Ok(())
    }

    /// The field `name`, if it is there and not `null`.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<Self> {
        let value = self.value.as_object()?.get(name)?;
        if value.is_null() { None } else { Some(Self { value, path: self.join(name) }) }
    }

    /// The field `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn required(&self, name: &str) -> Result<Self, ConfigError> {
        self.optional(name).ok_or_else(|| ConfigError::new(&self.join(name), "is missing"))
    }

    /// The fields of an object, with their names.
    ///
    /// # Errors
    ///
    /// Not an object.
    pub fn fields(&self) -> Result<impl Iterator<Item = (&'a str, Self)>, ConfigError> {
        let Value::Object(object) = self.value else {
            return Err(self.wrong("must be an object"));
        };
        let of = self.clone();
        Ok(object
            .iter()
            .map(move |(name, value)| (name.as_str(), Self { value, path: of.join(name) })))
    }

    /// The items of a list of at most `max`.
    ///
    /// # Errors
    ///
    /// Not a list, or a longer one.
    pub fn items(&self, max: usize) -> Result<impl Iterator<Item = Self>, ConfigError> {
        let Value::Array(items) = self.value else { return Err(self.wrong("must be a list")) };
        if items.len() > max {
            return Err(self.wrong(&format!("must have at most {max} items")));
        }
        let path = self.path.clone();
        Ok(items
            .iter()
            .enumerate()
            .map(move |(index, value)| Self { value, path: format!("{path}[{index}]") }))
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// Not a text.
    pub fn text(&self) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong("must be a text"))
    }

    /// One of `words`; gives its index.
    ///
    /// # Errors
    ///
    /// Another text, or no text.
    pub fn word(&self, words: &[&str]) -> Result<usize, ConfigError> {
        let text = self.value.as_str();
        words
            .iter()
            .position(|word| Some(*word) == text)
            .ok_or_else(|| self.wrong(&format!("must be one of {}", quoted(words))))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong("must be true or false"))
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    ///
    /// Not a whole number (`1.5`, `"1"`), or one outside.
    pub fn number(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let fault = || {
            let (start, end) = (range.start(), range.end());
            self.wrong(&match end {
                &u64::MAX => format!("must be a whole number, at least {start}"),
                end => format!("must be a whole number from {start} to {end}"),
            })
        };
        let number = self.value.as_u64().ok_or_else(fault)?;
        if range.contains(&number) { Ok(number) } else { Err(fault()) }
    }

    /// A duration in whole milliseconds, with its limits in milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Reader::number`].
    pub fn millis(&self, range: RangeInclusive<u64>) -> Result<Duration, ConfigError> {
        self.number(range).map(Duration::from_millis)
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<alloc::vec::Vec<_>>().join(", ")
}

/// The name that was probably meant: the nearest by edits, if it is near enough.
fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    if name.len() > 64 {
        return None;
    }
    let near = names.iter().map(|candidate| (edits(name, candidate), *candidate)).min()?;
    (near.0 <= name.len().max(near.1.len()) / 3 + 1).then_some(near.1)
}

/// The Levenshtein distance of two texts, in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = alloc::vec![left];
        for (y, above) in b.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: &Value, read: impl Fn(Reader<'_>) -> Result<(), ConfigError>, fault: &str) {
        assert_eq!(read(Reader::root(value)).unwrap_err().to_string(), fault);
    }

    #[test]
    fn an_error_names_the_path_the_value_and_what_would_be_right() {
        let limits = json!({"limits": [{"requests": 1}, {"requests": 0}]});
        check(
            &limits,
            |root| {
                for limit in root.required("limits")?.items(9)? {
                    limit.required("requests")?.number(1..=100)?;
                }
                Ok(())
            },
            "limits[1].requests: must be a whole number from 1 to 100, got 0",
        );
        check(
            &json!({"a": {"b": 1}}),
            |root| root.required("a")?.required("c").map(|_| ()),
            "a.c: is missing",
        );
        check(
            &json!({"mode": "strikt"}),
            |root| root.required("mode")?.word(&["strict", "shadow"]).map(|_| ()),
            "mode: must be one of \"strict\", \"shadow\", got \"strikt\"",
        );
        check(&json!([]), |root| root.only(&["a"]), "configuration: must be an object, got []");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        check(
            &json!({"reqests": 1}),
            |root| root.only(&["requests", "per_ms"]),
            "reqests: is not known; did you mean \"requests\"?",
        );
        check(
            &json!({"zzz": 1}),
            |root| root.only(&["requests", "per_ms"]),
            "zzz: is not known; known here: requests, per_ms",
        );
    }

    #[test]
    fn the_distance_counts_edits() {
        for (a, b, distance) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn long_values_are_cut_in_the_message() {
        let value = json!({"x": "é".repeat(500)});
        let fault = Reader::root(&value).required("x").unwrap().boolean().unwrap_err().to_string();
        assert!(fault.len() < 200, "{fault}");
    }
}
