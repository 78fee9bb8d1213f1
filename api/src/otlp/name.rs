//! Names of metrics and attributes as names of series and labels.
//!
//! Source: OpenTelemetry's "Prometheus and OpenMetrics compatibility" and the behaviour of Prometheus' OTLP
//! receiver, whose four strategies these are.

/// What becomes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranslationStrategy {
    /// Other characters than letters, digits and `:` become `_`; units and types are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Other characters become `_`; nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay as they are; units and types are appended.
    NoUtf8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

/// What decides about the suffix of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedKind {
    Counter,
    Gauge,
    Other,
}

/// Units that have words. Others are appended as they are.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units behind a slash that have words.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

impl TranslationStrategy {
    /// All strategies.
    pub const ALL: [Self; 4] = [
        Self::UnderscoreEscapingWithSuffixes,
        Self::UnderscoreEscapingWithoutSuffixes,
        Self::NoUtf8EscapingWithSuffixes,
        Self::NoTranslation,
    ];

    /// The name in Prometheus' configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnderscoreEscapingWithSuffixes => "UnderscoreEscapingWithSuffixes",
            Self::UnderscoreEscapingWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            Self::NoUtf8EscapingWithSuffixes => "NoUTF8EscapingWithSuffixes",
            Self::NoTranslation => "NoTranslation",
        }
    }

    fn escapes(self) -> bool {
        matches!(
            self,
            Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes
        )
    }

    /// The name of a metric's family. `None`: nothing of the name can be kept.
    pub(super) fn metric_name(self, name: &str, unit: &str, kind: NamedKind) -> Option<String> {
        let named = match self {
            Self::UnderscoreEscapingWithSuffixes => escaped_with_suffixes(name, unit, kind),
            Self::UnderscoreEscapingWithoutSuffixes => {
                let is_allowed = |c: char| is_token_character(c) || c == '_';
                before_digit(tokens(name, is_allowed).join("_"), "_")
            }
            Self::NoUtf8EscapingWithSuffixes => kept_with_suffixes(name, unit, kind),
            Self::NoTranslation => name.to_owned(),
        };
        let is_telling = named == name || named.chars().any(|c| c != '_');
        (!named.is_empty() && is_telling).then_some(named)
    }

    /// The words of a unit, as metadata tells it: also where names do not have it, as Prometheus has it.
    pub(super) fn unit_name(self, unit: &str) -> String {
        let (main, per) = unit_words(unit);
        let words = [main, per].map(|words| match self.escapes() {
            true => clean(&words),
            false => words,
        });
        let words = words.iter().filter(|words| !words.is_empty());
        let words: Vec<&str> = words.map(String::as_str).collect();
        words.join("_")
    }

    /// Writes the name of a label over what `out` was. `false`: nothing of the name can be kept.
    pub(super) fn label_name(self, key: &str, out: &mut String) -> bool {
        out.clear();
        if !self.escapes() {
            out.push_str(key);
            return !key.is_empty();
        }
        if key.starts_with(|c: char| c.is_ascii_digit()) {
            out.push_str("key_");
        }
        let replace = |c: char| match c.is_ascii_alphanumeric() {
            true => c,
            false => '_',
        };
        out.extend(key.chars().map(replace));
        if out.starts_with('_') && !out.starts_with("__") {
            out.insert_str(0, "key");
        }
        !key.is_empty() && (out == key || out.chars().any(|c| c != '_'))
    }
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// The pieces of a text of allowed characters.
fn tokens(text: &str, is_allowed: impl Fn(char) -> bool) -> Vec<&str> {
    let pieces = text.split(|c| !is_allowed(c));
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// Words of a unit without other characters.
fn clean(words: &str) -> String {
    tokens(words, is_token_character).join("_")
}

/// Puts `prefix` before a text that begins with a digit.
fn before_digit(text: String, prefix: &str) -> String {
    match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("{prefix}{text}"),
        false => text,
    }
}

/// Pieces of the name, then the unit where the name does not have it yet, then the type.
fn escaped_with_suffixes(name: &str, unit: &str, kind: NamedKind) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = (clean(&main), clean(&per));
    let mut parts = tokens(name, is_token_character);
    let is_new = |parts: &[&str], word: &str| !word.is_empty() && !parts.contains(&word);
    let (has_main, has_per) = (is_new(&parts, &main), is_new(&parts, &per));
    if has_main {
        parts.push(&main);
    }
    if has_per {
        parts.push(&per);
    }
    if let Some(word) = type_word(unit, kind) {
        parts.retain(|part| *part != word);
        parts.push(word);
    }
    before_digit(parts.join("_"), "_")
}

/// The name as it is, then unit and type where the name does not end with them.
fn kept_with_suffixes(name: &str, unit: &str, kind: NamedKind) -> String {
    let (main, per) = unit_words(unit);
    let type_word = type_word(unit, kind).unwrap_or("");
    let mut name = name;
    for suffix in [type_word, &per] {
        name = without_suffix(name, suffix);
    }
    let mut out = name.to_owned();
    if !main.is_empty() && !name.ends_with(&main) {
        out = format!("{out}_{main}");
    }
    for suffix in [&per, type_word] {
        if !suffix.is_empty() {
            out = format!("{out}_{suffix}");
        }
    }
    out
}

/// Takes a suffix and the character before it off, if something is left.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let Some(rest) = name.strip_suffix(suffix).filter(|_| !suffix.is_empty()) else {
        return name;
    };
    let mut characters = rest.chars();
    characters.next_back();
    match characters.as_str() {
        "" => name,
        rest => rest,
    }
}

/// What the type appends. Unit `1` says that a gauge is a ratio; counters have it for other reasons.
fn type_word(unit: &str, kind: NamedKind) -> Option<&'static str> {
    match kind {
        NamedKind::Counter => Some("total"),
        NamedKind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    }
}

/// The words of a unit before and behind its slash, `per_` included; annotations in braces have none.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |text: &str, words: &[(&str, &str)]| {
        let text = text.trim();
        if text.contains(['{', '}']) {
            return String::new();
        }
        let found = words.iter().find(|(short, _)| *short == text);
        found.map_or(text, |(_, word)| word).to_owned()
    };
    let (main, per) = (word(main, &UNITS), word(per, &PER_UNITS));
    match per.is_empty() {
        true => (main, per),
        false => (main, format!("per_{per}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{NamedKind::*, TranslationStrategy::*, *};

    fn check(strategy: TranslationStrategy, of: (&str, &str, NamedKind), expected: Option<&str>) {
        let (name, unit, kind) = of;
        let found = strategy.metric_name(name, unit, kind);
        assert_eq!(found.as_deref(), expected, "{strategy:?} {of:?}");
    }

    #[test]
    fn escaped_names_with_suffixes() {
        for (name, unit, kind, expected) in [
            (
                "http.server.duration",
                "s",
                Other,
                "http_server_duration_seconds",
            ),
            ("requests.count", "1", Counter, "requests_count_total"),
            ("requests_total", "{request}", Counter, "requests_total"),
            ("total.requests", "", Counter, "requests_total"),
            ("hit", "1", Gauge, "hit_ratio"),
            ("ratio.of.hits", "1", Gauge, "of_hits_ratio"),
            ("hits", "1", Other, "hits"),
            ("memory.usage", "By", Gauge, "memory_usage_bytes"),
            ("memory_usage_bytes", "By", Gauge, "memory_usage_bytes"),
            ("speed", "m/s", Gauge, "speed_meters_per_second"),
            ("speed", "km/h", Gauge, "speed_km_per_hour"),
            ("flow", "{packet}/s", Gauge, "flow_per_second"),
            ("odd", "a b__c", Gauge, "odd_a_b_c"),
            ("2xx..responses", "", Gauge, "_2xx_responses"),
            ("a:b__c\u{e9}d", "", Gauge, "a:b_c_d"),
            ("usage", "%", Gauge, "usage_percent"),
            ("temp", " Cel ", Gauge, "temp_celsius"),
        ] {
            check(
                UnderscoreEscapingWithSuffixes,
                (name, unit, kind),
                Some(expected),
            );
        }
        check(UnderscoreEscapingWithSuffixes, ("", "", Gauge), None);
        check(UnderscoreEscapingWithSuffixes, ("\u{e9}", "", Gauge), None);
    }

    #[test]
    fn other_strategies() {
        for (name, unit, kind, expected) in [
            ("http.server.duration", "s", Counter, "http_server_duration"),
            ("a__b", "s", Gauge, "a__b"),
            ("1a.b", "", Gauge, "_1a_b"),
        ] {
            check(
                UnderscoreEscapingWithoutSuffixes,
                (name, unit, kind),
                Some(expected),
            );
        }
        for (name, unit, kind, expected) in [
            (
                "http.server.duration",
                "s",
                Other,
                "http.server.duration_seconds",
            ),
            ("a.total", "s", Counter, "a_seconds_total"),
            ("a.seconds", "s", Counter, "a.seconds_total"),
            ("speed.per_second", "m/s", Gauge, "speed_meters_per_second"),
            ("x.ratio", "1", Gauge, "x_ratio"),
            ("total", "", Counter, "total_total"),
        ] {
            check(
                NoUtf8EscapingWithSuffixes,
                (name, unit, kind),
                Some(expected),
            );
        }
        check(
            NoTranslation,
            ("a.b \u{e9}", "s", Counter),
            Some("a.b \u{e9}"),
        );
        check(NoTranslation, ("", "s", Counter), None);
    }

    #[test]
    fn units_in_words() {
        for (unit, expected) in [
            ("By", "bytes"),
            ("Cel", "celsius"),
            ("ms", "milliseconds"),
            ("1", ""),
            ("", ""),
            ("{request}", ""),
            ("By/s", "bytes_per_second"),
            ("{packet}/s", "per_second"),
            ("km/h", "km_per_hour"),
            ("a b", "a_b"),
        ] {
            let names = [
                UnderscoreEscapingWithSuffixes,
                UnderscoreEscapingWithoutSuffixes,
            ];
            assert_eq!(names.map(|s| s.unit_name(unit)), [expected; 2], "{unit}");
        }
        assert_eq!(NoTranslation.unit_name("By/s"), "bytes_per_second");
        assert_eq!(NoUtf8EscapingWithSuffixes.unit_name("a b"), "a b");
    }

    fn check_label(strategy: TranslationStrategy, key: &str, expected: Option<&str>) {
        let mut name = "old".to_owned();
        let is_name = strategy.label_name(key, &mut name);
        assert_eq!(is_name.then_some(name.as_str()), expected, "{key:?}");
    }

    #[test]
    fn labels() {
        for (key, expected) in [
            ("http.request.method", Some("http_request_method")),
            ("a..b", Some("a__b")),
            ("1st", Some("key_1st")),
            ("_a", Some("key_a")),
            (".a", Some("key_a")),
            ("__a", Some("__a")),
            ("a:b", Some("a_b")),
            ("", None),
            ("..", None),
        ] {
            check_label(UnderscoreEscapingWithSuffixes, key, expected);
        }
        check_label(NoTranslation, "a.b", Some("a.b"));
        check_label(NoTranslation, "", None);
    }
}
