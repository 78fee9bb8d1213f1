//! Functions of a sample's value.

use crate::{
    evaluate::context::{go_max, go_min},
    function::SampleFunction,
    functions::native,
    row::ABSENT,
};
use trefoil_model::Histogram;

/// Applies a function with up to two parameters; [`ABSENT`] where there is no result.
#[inline]
pub(crate) fn apply(function: SampleFunction, value: f64, parameters: [f64; 2]) -> f64 {
    use SampleFunction as F;
    let [first, second] = parameters;
    match function {
        F::Abs => value.abs(),
        F::Acos => value.acos(),
        F::Acosh => value.acosh(),
        F::Asin => value.asin(),
        F::Asinh => value.asinh(),
        F::Atan => value.atan(),
        F::Atanh => value.atanh(),
        F::Ceil => value.ceil(),
        F::Clamp if second < first => ABSENT,
        F::Clamp => go_max(first, go_min(second, value)),
        F::ClampMax => go_min(first, value),
        F::ClampMin => go_max(first, value),
        F::Cos => value.cos(),
        F::Cosh => value.cosh(),
        F::Deg => value * 180.0 / std::f64::consts::PI,
        F::Exp => value.exp(),
        F::Floor => value.floor(),
        F::Ln => value.ln(),
        F::Log10 => value.log10(),
        F::Log2 => value.log2(),
        F::Rad => value * std::f64::consts::PI / 180.0,
        F::Round => {
            // Dividing by the inverse keeps results such as 0.1 exact.
            let inverse = 1.0 / first;
            (value * inverse + 0.5).floor() / inverse
        }
        F::Sgn if value < 0.0 => -1.0,
        F::Sgn if value > 0.0 => 1.0,
        F::Sgn => value,
        F::Sin => value.sin(),
        F::Sinh => value.sinh(),
        F::Sqrt => value.sqrt(),
        F::Tan => value.tan(),
        F::Tanh => value.tanh(),
        F::HistogramAvg
        | F::HistogramCount
        | F::HistogramStddev
        | F::HistogramStdvar
        | F::HistogramSum => ABSENT,
    }
}

/// Applies a function to a histogram; [`ABSENT`] for functions of floats.
pub(crate) fn of_histogram(function: SampleFunction, histogram: &Histogram) -> f64 {
    use SampleFunction as F;
    match function {
        F::HistogramAvg => histogram.sum / histogram.count,
        F::HistogramCount => histogram.count,
        F::HistogramStddev => native::variance(histogram).sqrt(),
        F::HistogramStdvar => native::variance(histogram),
        F::HistogramSum => histogram.sum,
        _ => ABSENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_those_of_the_peer() {
        let check = |function, value: f64, parameters, expected: f64| {
            let got = apply(function, value, parameters);
            assert_eq!(
                got.to_bits(),
                expected.to_bits(),
                "{function:?} of {value}: {got}"
            );
        };
        check(SampleFunction::Round, 2.5, [1.0, 0.0], 3.0);
        check(SampleFunction::Round, 0.149, [0.1, 0.0], 0.1);
        check(SampleFunction::Clamp, 5.0, [1.0, 3.0], 3.0);
        check(SampleFunction::Clamp, 5.0, [3.0, 1.0], ABSENT);
        check(SampleFunction::Sgn, -3.0, [0.0; 2], -1.0);
        assert!(apply(SampleFunction::ClampMax, 1.0, [f64::NAN, 0.0]).is_nan());
    }
}
