//! The fields of OTLP's messages, as JSON names them and protobuf numbers them.
//!
//! Source: opentelemetry-proto 1.x (`common`, `resource`, `metrics`, `collector/metrics`). Fields that are
//! not here are ignored. Logs and traces will add their messages and share the ones at the top.

/// A message.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// In lowerCamelCase.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// Whether JSON has an array of them.
    pub(super) repeated: bool,
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Message(&'static Schema),
    Text,
    /// Base64 in JSON.
    Bytes,
    /// Hexadecimal digits in JSON, which is OTLP's own rule for the ids of traces and spans.
    Id,
    Bool,
    /// A number, or one of these names, which count from 0. Another name is the first one, as another number is to who
    /// reads it.
    Enum(&'static [&'static str]),
    /// Whole numbers of JSON in a varint.
    Int64,
    Uint64,
    Uint32,
    Sint32,
    Fixed64,
    Sfixed64,
    Double,
}

impl Schema {
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: false,
    }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: true,
    }
}

static ANY_VALUE: Schema = Schema {
    fields: &[
        one("stringValue", 1, Kind::Text),
        one("boolValue", 2, Kind::Bool),
        one("intValue", 3, Kind::Int64),
        one("doubleValue", 4, Kind::Double),
        one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Kind::Bytes),
    ],
};

static ARRAY_VALUE: Schema = Schema {
    fields: &[many("values", 1, Kind::Message(&ANY_VALUE))],
};

static KEY_VALUE_LIST: Schema = Schema {
    fields: &[many("values", 1, Kind::Message(&KEY_VALUE))],
};

static KEY_VALUE: Schema = Schema {
    fields: &[
        one("key", 1, Kind::Text),
        one("value", 2, Kind::Message(&ANY_VALUE)),
    ],
};

static RESOURCE: Schema = Schema {
    fields: &[many("attributes", 1, Kind::Message(&KEY_VALUE))],
};

static SCOPE: Schema = Schema {
    fields: &[
        one("name", 1, Kind::Text),
        one("version", 2, Kind::Text),
        many("attributes", 3, Kind::Message(&KEY_VALUE)),
    ],
};

pub(super) static EXPORT_METRICS: Schema = Schema {
    fields: &[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))],
};

static RESOURCE_METRICS: Schema = Schema {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static SCOPE_METRICS: Schema = Schema {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("metrics", 2, Kind::Message(&METRIC)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static METRIC: Schema = Schema {
    fields: &[
        one("name", 1, Kind::Text),
        one("description", 2, Kind::Text),
        one("unit", 3, Kind::Text),
        one("gauge", 5, Kind::Message(&GAUGE)),
        one("sum", 7, Kind::Message(&SUM)),
        one("histogram", 9, Kind::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL)),
        one("summary", 11, Kind::Message(&SUMMARY)),
    ],
};

/// The only enumeration of metrics. OTLP writes numbers; protobuf's own JSON, and what is written by hand, names.
const TEMPORALITY: Kind = Kind::Enum(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
]);

static GAUGE: Schema = Schema {
    fields: &[many("dataPoints", 1, Kind::Message(&NUMBER_POINT))],
};

static SUM: Schema = Schema {
    fields: &[
        many("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
        one("isMonotonic", 3, Kind::Bool),
    ],
};

static HISTOGRAM: Schema = Schema {
    fields: &[
        many("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};

static EXPONENTIAL: Schema = Schema {
    fields: &[
        many("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};

static SUMMARY: Schema = Schema {
    fields: &[many("dataPoints", 1, Kind::Message(&SUMMARY_POINT))],
};

static NUMBER_POINT: Schema = Schema {
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("asDouble", 4, Kind::Double),
        many("exemplars", 5, Kind::Message(&EXEMPLAR)),
        one("asInt", 6, Kind::Sfixed64),
        many("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("flags", 8, Kind::Uint32),
    ],
};

static HISTOGRAM_POINT: Schema = Schema {
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("bucketCounts", 6, Kind::Fixed64),
        many("explicitBounds", 7, Kind::Double),
        many("exemplars", 8, Kind::Message(&EXEMPLAR)),
        many("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("flags", 10, Kind::Uint32),
    ],
};

static EXPONENTIAL_POINT: Schema = Schema {
    fields: &[
        many("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        one("scale", 6, Kind::Sint32),
        one("zeroCount", 7, Kind::Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Kind::Uint32),
        many("exemplars", 11, Kind::Message(&EXEMPLAR)),
        one("zeroThreshold", 14, Kind::Double),
    ],
};

static BUCKETS: Schema = Schema {
    fields: &[
        one("offset", 1, Kind::Sint32),
        many("bucketCounts", 2, Kind::Uint64),
    ],
};

static SUMMARY_POINT: Schema = Schema {
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("quantileValues", 6, Kind::Message(&QUANTILE)),
        many("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("flags", 8, Kind::Uint32),
    ],
};

static QUANTILE: Schema = Schema {
    fields: &[
        one("quantile", 1, Kind::Double),
        one("value", 2, Kind::Double),
    ],
};

static EXEMPLAR: Schema = Schema {
    fields: &[
        one("timeUnixNano", 2, Kind::Fixed64),
        one("asDouble", 3, Kind::Double),
        one("spanId", 4, Kind::Id),
        one("traceId", 5, Kind::Id),
        one("asInt", 6, Kind::Sfixed64),
        many("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
    ],
};
