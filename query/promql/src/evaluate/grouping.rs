//! Which group of an aggregation a series belongs to.

use super::METADATA_LABELS;
use crate::{
    QueryError,
    ast::Aggregate,
    partial::{GroupColumn, GroupPartial},
};
use std::collections::HashMap;
use trefoil_model::{LABEL_NAME_METRIC, Labels, write_varint};

/// `by` or `without`, in the form in which labels are tested.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    labels: Vec<String>,
    without: bool,
    delayed_name_removal: bool,
}

impl Grouping {
    pub(crate) fn of(aggregate: &Aggregate, delayed_name_removal: bool) -> Self {
        Self {
            labels: aggregate.grouping.clone(),
            without: aggregate.without,
            delayed_name_removal,
        }
    }

    /// The canonical bytes of the group's labels. `drops_name`: the metric name has gone already,
    /// unless its removal is delayed.
    pub(crate) fn key(&self, labels: &Labels, drops_name: bool) -> Vec<u8> {
        let mut key = Vec::with_capacity(labels.canonical().len());
        self.write_key(labels, drops_name, &mut key);
        key
    }

    fn write_key(&self, labels: &Labels, drops_name: bool, key: &mut Vec<u8>) {
        key.clear();
        if !self.without && self.labels.is_empty() {
            return;
        }
        let hide_metadata = drops_name && !self.delayed_name_removal;
        for (name, value) in labels {
            if self.labels.iter().any(|label| label == name) == self.without
                || (self.without && name == LABEL_NAME_METRIC)
                || (hide_metadata && METADATA_LABELS.contains(&name))
            {
                continue;
            }
            for text in [name, value] {
                write_varint(key, text.len() as u64);
                key.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Groups by their labels, in the making.
#[derive(Debug)]
pub(crate) struct GroupMap {
    grouping: Grouping,
    indexes: HashMap<Vec<u8>, usize>,
    groups: Vec<GroupPartial>,
    key: Vec<u8>,
}

impl GroupMap {
    pub(crate) fn new(grouping: Grouping) -> Self {
        Self {
            grouping,
            indexes: HashMap::new(),
            groups: Vec::new(),
            key: Vec::new(),
        }
    }

    /// The group of a series, and whether it was made just now.
    pub(crate) fn group_of(
        &mut self,
        labels: &Labels,
        drops_name: bool,
        new: impl FnOnce() -> GroupColumn,
    ) -> Result<(&mut GroupPartial, bool), QueryError> {
        self.grouping.write_key(labels, drops_name, &mut self.key);
        let found = self.indexes.get(&self.key).copied();
        let at = match found {
            Some(at) => at,
            None => {
                let labels = Labels::from_canonical(&self.key)
                    .map_err(|error| QueryError::Internal(error.to_string()))?;
                self.indexes.insert(self.key.clone(), self.groups.len());
                self.groups.push(GroupPartial::new(labels, new()));
                self.groups.len() - 1
            }
        };
        let group = &mut self.groups[at];
        group.drop_name |= drops_name && self.grouping.delayed_name_removal;
        Ok((group, found.is_none()))
    }

    /// The groups in ascending order of labels.
    pub(crate) fn into_groups(mut self) -> Vec<GroupPartial> {
        self.groups.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.groups
    }
}
