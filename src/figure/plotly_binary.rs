//! Long arrays of numbers as base64 of their bytes, which plotly.js reads since 2.28: five bytes a
//! number where text takes seven or more.

use serde_json::{Value, json};

use crate::base64::base64;

/// Arrays with fewer numbers stay readable.
const FEW: usize = 512;

/// Writes `x`, `y` and `z` of a trace as single-precision floats where that is shorter.
pub(super) fn shorten(trace: &mut Value) {
    for key in ["x", "y", "z"] {
        if let Some(array) = trace.get_mut(key)
            && let Some(short) = short(array)
        {
            *array = short;
        }
    }
}

/// The array as `{dtype, bdata, shape}`, if it holds numbers and gaps alone and is shorter so.
fn short(array: &Value) -> Option<Value> {
    let outer = array.as_array()?;
    let nested = outer.first().is_some_and(Value::is_array);
    let rows: Vec<&[Value]> = match nested {
        true => outer.iter().map(|row| row.as_array().map(Vec::as_slice)).collect::<Option<_>>()?,
        false => vec![outer],
    };
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    if rows.len() * width < FEW {
        return None;
    }
    let mut bytes = Vec::with_capacity(4 * rows.len() * width);
    for row in &rows {
        // What a row leaves out at its end is missing.
        let missing = std::iter::repeat_n(&Value::Null, width - row.len());
        for value in row.iter().chain(missing) {
            let number = if value.is_null() { f64::NAN } else { value.as_f64()? };
            bytes.extend((number as f32).to_le_bytes());
        }
    }
    if bytes.len().div_ceil(3) * 4 >= array.to_string().len() {
        return None;
    }
    let mut short = json!({ "dtype": "f4", "bdata": base64(&bytes) });
    if nested {
        short["shape"] = json!(format!("{}, {width}", rows.len()));
    }
    Some(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_become_bytes_and_short_ones_stay() {
        let long: Vec<f64> = (0..600).map(|i| f64::from(i) * 0.1234).collect();
        let mut trace = json!({ "x": long, "y": vec![1; 600], "z": [[0.5], [0.25, 1.0]] });
        shorten(&mut trace);
        assert_eq!(trace["x"]["dtype"], "f4");
        assert_eq!(trace["y"], json!(vec![1; 600]), "two characters each are shorter");
        assert_eq!(trace["z"], json!([[0.5], [0.25, 1.0]]));
    }

    #[test]
    fn gaps_are_not_a_number() {
        let mut row: Vec<Value> = (0..300).map(|i| json!(f64::from(i) * 0.1234 + 0.001)).collect();
        row[0] = Value::Null;
        let mut trace = json!({ "z": [row.clone(), row[..200].to_vec()] });
        shorten(&mut trace);
        assert_eq!(trace["z"]["shape"], "2, 300");
        // The first number is NaN: 00 00 c0 7f, little end first.
        assert!(trace["z"]["bdata"].as_str().unwrap().starts_with("AADAf"));
    }
}
