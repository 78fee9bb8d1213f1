//! What the functions compute: of a sample, of a range of samples, of classic histogram buckets, of native histograms.

pub(crate) mod bucketed;
pub(crate) mod classic;
pub(crate) mod date;
pub(crate) mod extended;
pub(crate) mod native;
pub(crate) mod native_window;
pub(crate) mod quantile;
pub(crate) mod sample;
pub(crate) mod window;
