//! Numbers of scipy, statsmodels and scikit-learn: `data/golden/analysis/compare.py`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

fn rows(value: &Value) -> Tensor {
    let row = |row: &Value| {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        Tensor::from_slice(&row)
    };
    Tensor::stack(&value.as_array().unwrap().iter().map(row).collect::<Vec<_>>(), 0)
}

#[test]
fn measures_are_those_of_the_reference_packages() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/analysis/compare.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let (x, y) = (rows(&case["x"]), rows(&case["y"]));
        let number = |name: &str| case[name].as_f64().unwrap();
        let k = case["k"].as_u64().unwrap() as usize;
        near(cka(&x, &y).unwrap(), number("cka"));
        near(cka_debiased(&x, &y).unwrap(), number("cka_debiased"));
        let mut parts = MinibatchCka::new();
        let size = case["batch"].as_i64().unwrap();
        for at in (0..x.size()[0]).step_by(size as usize) {
            parts.add(&x.narrow(0, at, size), &y.narrow(0, at, size)).unwrap();
        }
        near(parts.value().unwrap(), number("cka_minibatch"));
        // scipy's disparity is what is left after the best scale: 1 - nuclear², both of length 1.
        let found = procrustes(&x, &y).unwrap();
        let nuclear = 1.0 - found.distance / 2.0;
        near(1.0 - nuclear * nuclear, number("disparity"));
        let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
        let size = centred.square().sum(None).double_value(&[]);
        near(found.scale * size / number("nuclear"), 1.0);
        let canonical = cca(&x, &y).unwrap();
        let expected: Vec<f64> =
            case["cca"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
        assert_eq!(canonical.correlations.len(), expected.len());
        canonical.correlations.iter().zip(&expected).for_each(|(a, b)| near(*a, *b));
        near(pwcca(&x, &y).unwrap(), number("pwcca"));
        near(svcca(&x, &y, 0.9).unwrap(), number("svcca"));
        near(mutual_neighbours(&x, &y, k).unwrap(), number("mutual"));
        near(rsa(&x, &y).unwrap(), number("rsa"));
    }
}
