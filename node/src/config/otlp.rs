//! Settings of OpenTelemetry's metrics, by Prometheus' names where it has them.

use super::{ConfigError, Listen};
use serde::{Deserialize, Deserializer, de::Error};
use trefoil_api::otlp::{Deltas, OtlpOptions, Promotion, TranslationStrategy};

/// The section of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OtlpSection {
    pub(super) grpc: Option<Listen>,
    pub(super) http: Option<Listen>,
    #[serde(deserialize_with = "strategy")]
    translation_strategy: TranslationStrategy,
    promote_resource_attributes: Vec<String>,
    promote_all_resource_attributes: bool,
    ignore_resource_attributes: Vec<String>,
    keep_identifying_resource_attributes: bool,
    convert_histograms_to_nhcb: bool,
    promote_scope_metadata: bool,
    #[serde(deserialize_with = "deltas")]
    deltas: Deltas,
    pub(super) delta_series_max: Option<usize>,
}

impl OtlpSection {
    /// What the section says of the translation.
    ///
    /// # Errors
    /// [`ConfigError::Impossible`] when settings contradict each other, as Prometheus has it.
    pub(super) fn options(self) -> Result<OtlpOptions, ConfigError> {
        Ok(OtlpOptions {
            promoted: promotion(
                self.promote_all_resource_attributes,
                self.promote_resource_attributes,
                self.ignore_resource_attributes,
            )?,
            strategy: self.translation_strategy,
            keeps_identifying_attributes: self.keep_identifying_resource_attributes,
            converts_histograms: self.convert_histograms_to_nhcb,
            promotes_scope: self.promote_scope_metadata,
            deltas: self.deltas,
        })
    }
}

/// Which attributes are promoted.
fn promotion(
    all: bool,
    listed: Vec<String>,
    ignored: Vec<String>,
) -> Result<Promotion, ConfigError> {
    let impossible = |text: &str| Err(ConfigError::Impossible(text.to_owned()));
    match all {
        true if !listed.is_empty() => impossible(
            "otlp.promote_resource_attributes: has no effect beside \
             promote_all_resource_attributes; remove one of them",
        ),
        true => Ok(Promotion::AllBut(ignored)),
        false if !ignored.is_empty() => impossible(
            "otlp.ignore_resource_attributes: needs promote_all_resource_attributes; set that to \
             true or remove it",
        ),
        false => Ok(Promotion::Only(listed)),
    }
}

/// What becomes of deltas, by its name.
fn deltas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Deltas, D::Error> {
    let name = String::deserialize(deserializer)?;
    let found = Deltas::ALL.into_iter().find(|one| one.as_str() == name);
    found.ok_or_else(|| {
        let names = Deltas::ALL.map(Deltas::as_str).join(", ");
        D::Error::custom(format!("unknown value `{name}`, expected one of {names}"))
    })
}

/// A strategy by its name in Prometheus.
fn strategy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TranslationStrategy, D::Error> {
    let name = String::deserialize(deserializer)?;
    let all = TranslationStrategy::ALL;
    let found = all.into_iter().find(|strategy| strategy.as_str() == name);
    found.ok_or_else(|| {
        let names = all.map(TranslationStrategy::as_str).join(", ");
        D::Error::custom(format!(
            "unknown strategy `{name}`, expected one of {names}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ServeArgs, Settings, merge, parse};
    use std::net::SocketAddr;

    fn read(yaml: &str) -> Result<Settings, ConfigError> {
        merge(
            &ServeArgs::default(),
            parse(std::path::Path::new("t.yaml"), yaml)?,
        )
    }

    #[test]
    fn the_section_is_read() {
        let settings = read(
            "otlp:\n  grpc: off\n  http: 127.0.0.1:1\n  translation_strategy: NoTranslation\n  \
             promote_resource_attributes: [a.b]\n  convert_histograms_to_nhcb: true\n  deltas: store\n  delta_series_max: 7\n",
        )
        .unwrap();
        let http = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(
            (settings.otlp_grpc, settings.otlp_http),
            (Listen::Off, Listen::At(http))
        );
        let expected = OtlpOptions {
            strategy: TranslationStrategy::NoTranslation,
            promoted: Promotion::Only(vec!["a.b".to_owned()]),
            converts_histograms: true,
            deltas: Deltas::Store,
            ..OtlpOptions::default()
        };
        assert_eq!(settings.otlp, expected);
        assert_eq!(settings.delta_series_max, 7);
        assert_eq!(read("zone: a\n").unwrap().otlp, OtlpOptions::default());
    }

    #[test]
    fn all_attributes_but_some() {
        let settings = read(
            "otlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [a.b]}\n",
        )
        .unwrap();
        let expected = Promotion::AllBut(vec!["a.b".to_owned()]);
        assert_eq!(settings.otlp.promoted, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (section, expected) in [
            ("{deltas: no}", "one of accumulate, store, refuse"),
            (
                "{translation_strategy: no}",
                "expected one of UnderscoreEscaping",
            ),
            (
                "{promote_all_resource_attributes: true, promote_resource_attributes: [a]}",
                "otlp.promote_resource_attributes: has no effect",
            ),
            (
                "{ignore_resource_attributes: [a]}",
                "otlp.ignore_resource_attributes: needs promote_all_resource_attributes",
            ),
        ] {
            let error = read(&format!("otlp: {section}\n")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
