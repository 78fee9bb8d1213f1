//! What messages of all three signals have in common: attributes, resources, scopes.
//!
//! Messages are read where they stand, as often as needed; nothing is copied before it is used.

use crate::{
    ApiError,
    wire::{Reader, WireType},
};

/// Attributes of one message; more are refused, because their names are compared with one another.
pub(super) const ATTRIBUTES_MAX: usize = 1024;

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) enum AnyValue<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Reader<'a>),
    Map(Reader<'a>),
    Bytes(&'a [u8]),
}

/// An attribute.
#[derive(Clone, Copy)]
pub(super) struct KeyValue<'a> {
    pub(super) key: &'a str,
    pub(super) value: AnyValue<'a>,
}

/// Who measured: what is common to all scopes below it.
#[derive(Default)]
pub(super) struct Resource<'a> {
    pub(super) attributes: Vec<KeyValue<'a>>,
}

/// What measured.
#[derive(Default)]
pub(super) struct Scope<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) attributes: Vec<KeyValue<'a>>,
}

impl<'a> Resource<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, ApiError> {
        let mut resource = Self::default();
        while !reader.is_at_end() {
            match reader.tag("Resource")? {
                (1, WireType::Bytes) => {
                    let attribute = reader.message("Resource.attributes")?;
                    push_attribute(attribute, &mut resource.attributes)?;
                }
                (_, wire_type) => reader.skip(wire_type, "Resource")?,
            }
        }
        Ok(resource)
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue<'a>> {
        let mut found = self
            .attributes
            .iter()
            .filter(|attribute| attribute.key == key);
        found.next().copied()
    }
}

impl<'a> Scope<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, ApiError> {
        let mut scope = Self::default();
        while !reader.is_at_end() {
            match reader.tag("InstrumentationScope")? {
                (1, WireType::Bytes) => scope.name = reader.text("InstrumentationScope.name")?,
                (2, WireType::Bytes) => {
                    scope.version = reader.text("InstrumentationScope.version")?;
                }
                (3, WireType::Bytes) => {
                    let attribute = reader.message("InstrumentationScope.attributes")?;
                    push_attribute(attribute, &mut scope.attributes)?;
                }
                (_, wire_type) => reader.skip(wire_type, "InstrumentationScope")?,
            }
        }
        Ok(scope)
    }
}

/// Reads an attribute and adds it.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`], [`ApiError::BadData`] when there are too many.
pub(super) fn push_attribute<'a>(
    reader: Reader<'a>,
    out: &mut Vec<KeyValue<'a>>,
) -> Result<(), ApiError> {
    if out.len() == ATTRIBUTES_MAX {
        return Err(ApiError::BadData(format!(
            "a resource, scope or data point has more than {ATTRIBUTES_MAX} attributes"
        )));
    }
    out.push(KeyValue::read(reader)?);
    Ok(())
}

impl<'a> KeyValue<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, ApiError> {
        let (mut key, mut value) = ("", AnyValue::Empty);
        while !reader.is_at_end() {
            match reader.tag("KeyValue")? {
                (1, WireType::Bytes) => key = reader.text("KeyValue.key")?,
                (2, WireType::Bytes) => value = AnyValue::read(reader.message("KeyValue.value")?)?,
                (_, wire_type) => reader.skip(wire_type, "KeyValue")?,
            }
        }
        Ok(Self { key, value })
    }
}

impl<'a> AnyValue<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, ApiError> {
        let mut value = Self::Empty;
        while !reader.is_at_end() {
            value = match reader.tag("AnyValue")? {
                (1, WireType::Bytes) => Self::Text(reader.text("AnyValue.string_value")?),
                (2, WireType::Varint) => Self::Bool(reader.varint("AnyValue.bool_value")? != 0),
                (3, WireType::Varint) => Self::Int(reader.varint("AnyValue.int_value")? as i64),
                (4, WireType::Fixed64) => {
                    Self::Double(f64::from_bits(reader.fixed64("AnyValue.double_value")?))
                }
                (5, WireType::Bytes) => Self::Array(reader.message("AnyValue.array_value")?),
                (6, WireType::Bytes) => Self::Map(reader.message("AnyValue.kvlist_value")?),
                (7, WireType::Bytes) => Self::Bytes(reader.bytes("AnyValue.bytes_value")?),
                (_, wire_type) => {
                    reader.skip(wire_type, "AnyValue")?;
                    value
                }
            };
        }
        Ok(value)
    }
}
