//! Values of a scenario file that are written more than one way.

use std::{fmt, time::Duration};

use regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// A text; numbers and truth values are taken as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// A duration such as `600ms` or `2s`.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub Duration);

/// Regular expressions, one or several.
#[derive(Debug, Clone, Default)]
pub struct Patterns(pub Vec<Regex>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a text, a number, true or false")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        from.deserialize_any(Scalar)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = humantime::parse_duration(&text);
        parsed.map(Self).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Patterns;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a regular expression, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Patterns, E> {
                Ok(Patterns(vec![Regex::new(text).map_err(E::custom)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Patterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    patterns.push(Regex::new(&text).map_err(A::Error::custom)?);
                }
                Ok(Patterns(patterns))
            }
        }
        from.deserialize_any(OneOrMore)
    }
}

impl Patterns {
    /// The patterns that a text lacks.
    pub fn missing<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|pattern| !pattern.is_match(text)).map(Regex::as_str)
    }

    /// The patterns that a text has.
    pub fn found<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|pattern| pattern.is_match(text)).map(Regex::as_str)
    }
}
