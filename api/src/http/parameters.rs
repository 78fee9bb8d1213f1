//! The parameters of a request: those of a form body first, then those of the address.

use super::{App, body};
use crate::{
    ApiError, ListingOptions,
    number::{TIME_MAX, TIME_MIN, parse_optional_time, parse_span, parse_time},
};
use axum::{
    extract::Request,
    http::{Method, Uri, header},
};
use std::{
    num::IntErrorKind,
    time::{Duration, Instant},
};
use trefoil_model::Millis;
use trefoil_query_promql::{Matcher, SeriesFilter, parse_selectors};

/// Names and values in the order in which they came.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the address, and the body of a `POST` or `PUT` with a form.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] and [`ApiError::BadData`] of the body; [`ApiError::BadData`] for a value that is not UTF-8.
    pub(super) async fn of(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, request_body) = request.into_parts();
        let mut pairs = Vec::new();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let is_form = content_type.is_some_and(|value| {
            value
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
        if matches!(parts.method, Method::POST | Method::PUT) && is_form {
            let declared = declared_length(&parts.headers);
            let bytes_max = app.limits.form_bytes_max;
            let form = body::collect(request_body, declared, bytes_max, None).await?;
            read_form(&form, &mut pairs)?;
        }
        let query = parts.uri.query().unwrap_or("");
        read_form(query.as_bytes(), &mut pairs)?;
        Ok(Self(pairs))
    }

    /// Reads the address alone.
    pub(super) fn of_address(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or("");
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value of a parameter; an empty one counts as absent, as in Prometheus.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(n, _)| n == name);
        first
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A time.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it cannot be read.
    pub(super) fn time(&self, name: &str) -> Result<Option<Millis>, ApiError> {
        self.get(name)
            .map(|text| parse_optional_time(name, text))
            .transpose()
    }

    /// A time that must be there.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it is absent or cannot be read.
    pub(super) fn required_time(&self, name: &str) -> Result<Millis, ApiError> {
        parse_time(name, self.get(name).unwrap_or(""))
    }

    /// A time in whole milliseconds.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it is no such number.
    pub(super) fn millis(&self, name: &str) -> Result<Option<Millis>, ApiError> {
        let read = |text: &str| {
            let reason = || format!("{text:?} is not a time in whole milliseconds");
            text.parse()
                .map_err(|_| ApiError::parameter(name, reason()))
        };
        self.get(name).map(read).transpose()
    }

    /// Labels for all series of an import: `extra_label=name=value`, any number of times.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when one has no name or no `=`.
    pub(super) fn extra_labels(&self) -> Result<Vec<(String, String)>, ApiError> {
        let mut labels: Vec<(String, String)> = Vec::new();
        for text in self.all("extra_label") {
            let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
            let (name, value) = pair.ok_or_else(|| {
                ApiError::parameter(
                    "extra_label",
                    format!("{text:?} is not of the form name=value"),
                )
            })?;
            labels.retain(|(other, _)| other != name);
            labels.push((name.to_owned(), value.to_owned()));
        }
        Ok(labels)
    }

    /// How long after now the answer is worthless.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when the timeout cannot be read.
    pub(super) fn deadline(&self, longest: Duration) -> Result<Instant, ApiError> {
        Ok(Instant::now() + self.timeout(longest)?)
    }

    /// How long the answer may take.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it cannot be read.
    pub(super) fn timeout(&self, longest: Duration) -> Result<Duration, ApiError> {
        let wanted = self.get("timeout").map(|text| parse_span("timeout", text));
        let wanted = wanted.transpose()?;
        Ok(wanted.map_or(longest, |wanted| wanted.min(longest)))
    }

    /// How far back a sample counts.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it cannot be read.
    pub(super) fn look_back(&self) -> Result<Option<Duration>, ApiError> {
        // Prometheus does not call it by its name here.
        let wrong = |text: &str| {
            let reason = format!("cannot parse {text:?} to a valid duration");
            ApiError::BadData(format!("error parsing lookback delta duration: {reason}"))
        };
        let wanted = self.get("lookback_delta");
        let wanted = wanted
            .map(|text| parse_span("lookback_delta", text).map_err(|_| wrong(text)))
            .transpose()?;
        Ok(wanted.filter(|span| !span.is_zero()))
    }

    /// The longest buckets whose aggregates may stand for samples, in milliseconds, as Thanos names it: a duration, or `auto` for any
    /// length.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it cannot be read.
    pub(super) fn source_resolution_max_ms(&self) -> Result<Millis, ApiError> {
        let name = "max_source_resolution";
        match self.get(name) {
            None | Some("") => Ok(0),
            Some("auto") => Ok(Millis::MAX),
            Some(text) => {
                let longest = parse_span(name, text)?.as_millis();
                Ok(Millis::try_from(longest).unwrap_or(Millis::MAX))
            }
        }
    }

    /// Whether an answer that may lack items is wanted rather than none; spelled as Thanos and Go do.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it is not a truth value.
    pub(super) fn partial(&self) -> Result<bool, ApiError> {
        self.truth("partial_response")
    }

    /// A truth value, spelled as Go does; absent is false.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it is none.
    pub(super) fn truth(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => Err(ApiError::parameter(
                name,
                format!("cannot parse {text:?} to a truth value"),
            )),
        }
    }

    /// Whether no earlier answer may be used; named and read as VictoriaMetrics does.
    pub(super) fn anew(&self) -> bool {
        let text = self.get("nocache").unwrap_or("").to_ascii_lowercase();
        !matches!(text.as_str(), "" | "0" | "f" | "false" | "no")
    }

    /// How a question about series or labels is to be answered.
    ///
    /// # Errors
    /// As for [`Parameters::partial`].
    pub(super) fn listing_options(&self, deadline: Instant) -> Result<ListingOptions, ApiError> {
        Ok(ListingOptions {
            deadline,
            partial: self.partial()?,
        })
    }

    /// How many items are wanted at most; 0: all.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when it is not a number or negative.
    pub(super) fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(0);
        };
        let number: i64 = text.parse().map_err(|error: std::num::ParseIntError| {
            let reason = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            let reason = format!("strconv.Atoi: parsing {text:?}: {reason}");
            ApiError::parameter(name, reason)
        })?;
        usize::try_from(number).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// `start` and `end`; the longest period where one is absent.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when one cannot be read.
    pub(super) fn period(&self) -> Result<(Millis, Millis), ApiError> {
        let start = self.time("start")?.unwrap_or(TIME_MIN);
        let end = self.time("end")?.unwrap_or(TIME_MAX);
        Ok((start, end))
    }

    /// Which series are asked for: `match[]`, `start`, `end`, `limit`. Wrong selectors are reported with `match[]` in front
    /// of the reason when `names_selectors`, as Prometheus does for some requests.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when one of them cannot be read or does not make sense.
    pub(super) fn series_filter(&self, names_selectors: bool) -> Result<SeriesFilter, ApiError> {
        let limit = self.limit("limit")?;
        let (start, end) = self.period()?;
        if end < start {
            let reason = "end timestamp must not be before start time";
            return Err(ApiError::parameter("end", reason));
        }
        let wrong = |reason: String| match names_selectors {
            true => ApiError::parameter("match[]", reason),
            false => ApiError::BadData(reason),
        };
        Ok(SeriesFilter {
            alternatives: self.read_selectors().map_err(wrong)?,
            start,
            end,
            // One more shows whether there are more.
            limit: if limit == 0 {
                0
            } else {
                limit.saturating_add(1)
            },
        })
    }

    /// The selectors of `match[]`, each with a matcher that does not fit every series.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when one cannot be read or selects everything.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let selectors = self.read_selectors();
        selectors.map_err(|reason| ApiError::parameter("match[]", reason))
    }

    fn read_selectors(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let selectors = parse_selectors(self.all("match[]"));
        let selectors = selectors.map_err(|error| error.to_string())?;
        let fits_all = |matchers: &Vec<Matcher>| matchers.iter().all(Matcher::matches_absent);
        if selectors.iter().any(fits_all) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        Ok(selectors)
    }

    /// The selectors of `match[]`, whatever they select.
    ///
    /// # Errors
    /// [`ApiError::BadData`] when one cannot be read.
    pub(super) fn any_selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let selectors = parse_selectors(self.all("match[]"));
        selectors.map_err(|error| ApiError::BadData(error.to_string()))
    }
}

/// Adds the names and values of a form.
///
/// # Errors
/// [`ApiError::BadData`] that names the first parameter whose value is not UTF-8: what is read instead would be another question.
fn read_form(form: &[u8], pairs: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    // Pieces and pairs are the same: the decoder skips empty pieces, too.
    let pieces = form
        .split(|byte| *byte == b'&')
        .filter(|piece| !piece.is_empty());
    for (piece, (name, value)) in pieces.zip(form_urlencoded::parse(form)) {
        // The decoder's sign for what it could not read; a client may also have sent it.
        if value.contains(char::REPLACEMENT_CHARACTER) {
            let value_at = piece.iter().position(|byte| *byte == b'=').unwrap_or(0);
            if std::str::from_utf8(&unescaped(&piece[value_at..])).is_err() {
                return Err(ApiError::parameter(&name, "the value is not valid UTF-8"));
            }
        }
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Ok(())
}

/// The bytes of a form's text without its escapes; blanks as they are written.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// `Content-Length`, where the client sends one.
pub(super) fn declared_length(headers: &axum::http::HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_text_are_refused_by_name() {
        let read = |form: &str| {
            let mut pairs = Vec::new();
            read_form(form.as_bytes(), &mut pairs).map(|()| pairs)
        };
        for form in [
            "query=up{a=%22%ff%22}",
            "a=1&&query=%C3",
            "a=%EF%BF%BD&query=%EF%BF",
        ] {
            let error = read(form).expect_err(form).to_string();
            assert!(
                error.contains("\"query\"") && error.contains("UTF-8"),
                "{error}"
            );
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("a", "\u{fffd} %"), pair("b", ""), pair("", "é=")];
        assert_eq!(read("a=%EF%BF%BD+%&&b&=%c3%A9=").expect("text"), expected);
    }
}
