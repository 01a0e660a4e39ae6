//! Where the hub, its cache and its token come from: variables, given here by hand.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::support::{says, scratch};
use thalweg::Hub;
use thalweg::anyhow::Result;

fn hub(variables: &[(&str, &str)]) -> Result<Hub> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Hub::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn the_cache_is_where_python_keeps_it() {
    for (variables, expected) in [
        (&[("HOME", "/u")][..], "/u/.cache/huggingface/hub"),
        (&[("HOME", "/u"), ("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
        (&[("HOME", "/u"), ("HF_HOME", "~/hf")], "/u/hf/hub"),
        (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")], "/models"),
        (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
        (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")], "/hf/hub"),
    ] {
        assert_eq!(hub(variables).unwrap().cache, Path::new(expected), "{variables:?}");
    }
    says(hub(&[]), &["no home directory", "HF_HOME"]);
}

#[test]
fn the_token_comes_from_the_first_place_that_has_one() {
    let dir = scratch("hub-settings");
    let (home, elsewhere) = (dir.to_str().unwrap(), dir.join("other"));
    let elsewhere = elsewhere.to_str().unwrap();
    let token = |more: &[(&str, &str)]| hub(&[&[("HF_HOME", home)], more].concat()).unwrap().token;
    assert_eq!(token(&[]), None);
    std::fs::write(dir.join("token"), "hf_file\n").unwrap();
    std::fs::write(elsewhere, " hf_path ").unwrap();
    assert_eq!(token(&[]).unwrap(), "hf_file");
    assert_eq!(token(&[("HF_TOKEN_PATH", elsewhere)]).unwrap(), "hf_path");
    assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]).unwrap(), "hf_old");
    let both = [("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")];
    assert_eq!(token(&both).unwrap(), "hf_new");
    assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    let bad = hub(&[("HF_HOME", home), ("HF_TOKEN", "hf secret")]);
    assert!(!says(bad, &["token", "a space"]).contains("secret"));
}

#[test]
fn the_other_switches_are_read_or_refused() {
    let with = |name, value| hub(&[("HF_HOME", "/hf"), (name, value)]);
    let plain = hub(&[("HF_HOME", "/hf")]).unwrap();
    assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
    assert_eq!(plain.timeout, Duration::from_secs(10));
    assert_eq!(with("HF_ENDPOINT", "https://mirror/").unwrap().endpoint, "https://mirror");
    says(with("HF_ENDPOINT", "mirror"), &["HF_ENDPOINT = \"mirror\"", "expected an address"]);
    for yes in ["1", "true", "Yes", "ON"] {
        assert!(with("HF_HUB_OFFLINE", yes).unwrap().offline);
    }
    assert!(with("TRANSFORMERS_OFFLINE", "1").unwrap().offline);
    assert!(!with("HF_HUB_OFFLINE", "0").unwrap().offline);
    let timeout = with("HF_HUB_DOWNLOAD_TIMEOUT", "2.5").unwrap().timeout;
    assert_eq!(timeout, Duration::from_millis(2500));
    for bad in ["soon", "-1", "0", "NaN", "1e400"] {
        says(with("HF_HUB_DOWNLOAD_TIMEOUT", bad), &["expected seconds"]);
    }
}
