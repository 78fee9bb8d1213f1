//! What a coordinator asks an evaluator, and the bytes of it: bincode behind a version byte.

use super::{
    allowance::{Allowance, Fetched},
    counts::{Counted, Counts},
    pins::QueryKey,
    select::{Page, Select},
};
use bincode::Options;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;
use trefoil_model::{Millis, ShardSet, TenantId, TimeRange};
use trefoil_query_promql::{Matcher, Part, PartResult, QueryError};

/// The format version of questions and answers; another one is refused.
const VERSION: u8 = 4;
/// The largest question or answer.
const BYTES_MAX: u64 = 1 << 30;

/// The kind of an [`Ask`] among the calls of the `Queries` service.
pub(crate) const KIND_ASK: u32 = 1;
/// The kind of an [`Allowance`] with an [`Ask`]; asked when all members read it.
pub(crate) const KIND_ASK_WITHIN: u32 = 8;
/// The kind of an [`Ask`] that is to be answered anew, with an [`Allowance`] if there is one; asked when all members read it.
pub(crate) const KIND_ASK_ANEW: u32 = 10;

/// A question about some shards of a tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) tenant: TenantId,
    pub(crate) shards: ShardSet,
    /// What is left of the query's time, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Samples that the evaluator may hold.
    pub(crate) samples_max: u64,
    /// Bytes that its answer may have.
    pub(crate) bytes_max: u64,
    /// The query that this is about, if it has further parts: all of them are to be answered on one view.
    pub(crate) query: Option<QueryKey>,
    /// No owner can promise to be complete, and the client wants what there is: answer for all of the shards that
    /// are stored here, without a barrier.
    pub(crate) unproven: bool,
    /// What the tenant's limits leave of the question, when it has some. Travels beside it, as [`KIND_ASK_WITHIN`].
    #[serde(skip)]
    pub(crate) allowance: Option<Allowance>,
    /// No earlier answer may be used. Travels as [`KIND_ASK_ANEW`].
    #[serde(skip)]
    pub(crate) anew: bool,
    pub(crate) question: Question,
}

impl Ask {
    /// The kind of call, and its bytes.
    ///
    /// # Errors
    /// When it is larger than the limit.
    pub(crate) fn to_bytes(&self) -> Result<(u32, Bytes), Status> {
        match self.allowance {
            allowance if self.anew => Ok((KIND_ASK_ANEW, encode(&(allowance, self))?)),
            None => Ok((KIND_ASK, encode(self)?)),
            Some(allowance) => Ok((KIND_ASK_WITHIN, encode(&(allowance, self))?)),
        }
    }

    /// Reads a question of a kind.
    ///
    /// # Errors
    /// When the version is unknown or the bytes are malformed.
    pub(crate) fn from_bytes(kind: u32, bytes: &[u8]) -> Result<Self, Status> {
        if kind == KIND_ASK {
            return decode(bytes);
        }
        if kind == KIND_ASK_ANEW {
            let (allowance, ask): (Option<Allowance>, Self) = decode(bytes)?;
            return Ok(Self {
                allowance,
                anew: true,
                ..ask
            });
        }
        let (allowance, ask): (Allowance, Self) = decode(bytes)?;
        Ok(Self {
            allowance: Some(allowance),
            ..ask
        })
    }
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Work out a part of a PromQL query.
    Part(Box<Part>),
    /// The label sets of the series that fit.
    Series(Filter),
    /// The names of their labels.
    LabelNames(Filter),
    /// The values of one of their labels.
    LabelValues(String, Filter),
    /// What metric families are declared as; all when no name is given.
    Metadata(Option<String>),
    /// The exemplars of the series that fit.
    Exemplars(Filter),
    /// A page of series with their samples as they are.
    Select(Select),
    /// How many series their labels have.
    Counts(Counts),
}

/// All of time.
const ALL_TIME: TimeRange = TimeRange {
    start: Millis::MIN,
    end: Millis::MAX,
};

impl Question {
    /// Whether a query asks further questions, which should see the same state.
    pub(crate) fn is_one_of_several(&self) -> bool {
        match self {
            Self::Part(part) => part.is_one_of_several().unwrap_or(false),
            Self::Select(_) => true,
            _ => false,
        }
    }

    /// The times for which whoever answers must be complete. The same for all parts of one query.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for a part that the evaluation would refuse, too.
    pub(crate) fn reach(&self) -> Result<TimeRange, QueryError> {
        match self {
            Self::Part(part) => part.reach(),
            Self::Series(filter)
            | Self::LabelNames(filter)
            | Self::LabelValues(_, filter)
            | Self::Exemplars(filter) => Ok(TimeRange {
                start: filter.start,
                end: filter.end.saturating_add(1),
            }),
            Self::Select(select) => Ok(select.reach()),
            Self::Counts(counts) => Ok(counts.reach()),
            // Declarations have no time, and every block has some.
            Self::Metadata(_) => Ok(ALL_TIME),
        }
    }
}

/// Which series a question about labels is confined to; see `SeriesFilter` of the query crate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub(crate) alternatives: Vec<Vec<Matcher>>,
    pub(crate) start: Millis,
    pub(crate) end: Millis,
    pub(crate) limit: usize,
}

/// What an evaluator answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    /// Shards that it cannot promise: they must be asked elsewhere.
    pub(crate) refused: ShardSet,
    /// Shards of which data is lost for good; the client is told.
    pub(crate) gaps: ShardSet,
    /// What was fetched for the answer; counted only within an allowance, and travels only then.
    #[serde(skip)]
    pub(crate) fetched: Fetched,
    /// The answer for the other shards; nothing when all were refused.
    pub(crate) answer: Option<Result<Answer, QueryError>>,
}

impl Answered {
    /// The bytes of the answer to a call of a kind.
    ///
    /// # Errors
    /// When it is larger than the limit.
    pub(crate) fn to_bytes(&self, kind: u32) -> Result<Bytes, Status> {
        match kind {
            KIND_ASK => encode(self),
            _ => encode(&(self.fetched, self)),
        }
    }

    /// Reads the answer to a call of a kind.
    ///
    /// # Errors
    /// When the version is unknown or the bytes are malformed.
    pub(crate) fn from_bytes(kind: u32, bytes: &[u8]) -> Result<Self, Status> {
        if kind == KIND_ASK {
            return decode(bytes);
        }
        let (fetched, answered): (Fetched, Self) = decode(bytes)?;
        Ok(Self {
            fetched,
            ..answered
        })
    }
}

/// The content of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Part(PartResult),
    /// Canonical label bytes, ascending by labels.
    Series(Vec<Vec<u8>>),
    /// Ascending.
    Texts(Vec<String>),
    Metadata(Vec<FamilyMetadata>),
    Exemplars(Vec<ExemplarsOfSeries>),
    Page(Page),
    Counts(Counted),
}

/// Canonical labels of a series, and its exemplars in order of time: canonical labels, milliseconds, value.
pub(crate) type ExemplarsOfSeries = (Vec<u8>, Vec<(Vec<u8>, Millis, f64)>);

/// What a metric family is declared as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FamilyMetadata {
    pub(crate) metric: String,
    pub(crate) metric_type: String,
    pub(crate) help: String,
    pub(crate) unit: String,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(BYTES_MAX)
}

/// The bytes of a question or an answer.
///
/// # Errors
/// When it is larger than the limit.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, Status> {
    let mut bytes = vec![VERSION];
    match options().serialize_into(&mut bytes, value) {
        Ok(()) => Ok(Bytes::from(bytes)),
        Err(error) => Err(Status::resource_exhausted(format!(
            "encode an answer: {error}"
        ))),
    }
}

/// Reads a question or an answer.
///
/// # Errors
/// When the version is unknown or the bytes are malformed.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => options()
            .deserialize(rest)
            .map_err(|error| Status::invalid_argument(format!("malformed question: {error}"))),
        Some((version, _)) => Err(Status::unimplemented(format!(
            "question of version {version}; this node reads version {VERSION}"
        ))),
        None => Err(Status::invalid_argument("an empty question")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::Incarnation;

    /// Pins the bytes of docs/formats/promql-parts.md.
    #[test]
    fn golden_question_and_answer() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let ask = Ask {
            tenant: TenantId(7),
            shards: ShardSet::all(4),
            timeout_ms: 300,
            samples_max: 5,
            bytes_max: 6,
            query: Some(QueryKey {
                coordinator: Incarnation(9),
                number: 10,
            }),
            unproven: true,
            allowance: None,
            anew: false,
            question: Question::LabelValues(
                "a".into(),
                Filter {
                    alternatives: Vec::new(),
                    start: -1,
                    end: 1,
                    limit: 0,
                },
            ),
        };
        let bytes = encode(&ask).expect("small");
        let pieces = [
            "04", "07", "010f", "fb2c01", "05", "06", "01090a", "01", "03", "0161", "00", "01",
            "02", "00",
        ];
        assert_eq!(hex(&bytes), pieces.concat());
        let back: Ask = decode(&bytes).expect("it was written just now");
        assert_eq!(format!("{back:?}"), format!("{ask:?}"));

        let answered = Answered {
            refused: ShardSet::new(),
            gaps: ShardSet::all(1),
            fetched: Fetched::default(),
            answer: Some(Ok(Answer::Texts(vec!["b".into()]))),
        };
        let bytes = encode(&answered).expect("small");
        let pieces = ["04", "00", "0101", "01", "00", "02", "010162"];
        assert_eq!(hex(&bytes), pieces.concat());
        assert!(decode::<Answered>(&[2, 0]).is_err(), "another version");
    }

    /// Pins the bytes of docs/formats/promql-parts.md.
    #[test]
    fn golden_question_within_limits() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let allowance = Allowance {
            oldest: -2,
            series_max: 11,
            bytes_max: 12,
        };
        let ask = Ask {
            tenant: TenantId(7),
            shards: ShardSet::all(1),
            timeout_ms: 1,
            samples_max: 2,
            bytes_max: 3,
            query: None,
            unproven: false,
            allowance: Some(allowance),
            anew: false,
            question: Question::Metadata(None),
        };
        let (kind, bytes) = ask.to_bytes().expect("small");
        assert_eq!(kind, KIND_ASK_WITHIN);
        let pieces = [
            "04", "030b0c", "07", "0101", "010203", "00", "00", "04", "00",
        ];
        assert_eq!(hex(&bytes), pieces.concat());
        let back = Ask::from_bytes(kind, &bytes).expect("it was written just now");
        assert_eq!(format!("{back:?}"), format!("{ask:?}"));
        let bare = Ask {
            allowance: None,
            ..ask
        };
        assert_eq!(bare.to_bytes().expect("small").0, KIND_ASK);
        let anew = Ask { anew: true, ..bare };
        let (kind, bytes) = anew.to_bytes().expect("small");
        assert_eq!(kind, KIND_ASK_ANEW);
        let pieces = ["04", "00", "07", "0101", "010203", "00", "00", "04", "00"];
        assert_eq!(hex(&bytes), pieces.concat());
        let back = Ask::from_bytes(kind, &bytes).expect("it was written just now");
        assert_eq!(format!("{back:?}"), format!("{anew:?}"));
        let limited = Ask {
            allowance: Some(allowance),
            ..anew
        };
        let (kind, bytes) = limited.to_bytes().expect("small");
        assert_eq!(
            (kind, hex(&bytes[..5])),
            (KIND_ASK_ANEW, "0401030b0c".into())
        );
        let back = Ask::from_bytes(kind, &bytes).expect("it was written just now");
        assert_eq!((back.allowance, back.anew), (Some(allowance), true));

        let answered = Answered {
            refused: ShardSet::new(),
            gaps: ShardSet::new(),
            fetched: Fetched {
                series: 3,
                bytes: 4,
            },
            answer: None,
        };
        let bytes = answered.to_bytes(KIND_ASK_WITHIN).expect("small");
        assert_eq!(hex(&bytes), "040304000000");
        let back = Answered::from_bytes(KIND_ASK_WITHIN, &bytes).expect("written just now");
        assert_eq!(back.fetched, answered.fetched);
    }
}
