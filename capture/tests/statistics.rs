//! Statistics in parts are those of one pass.

use std::process::Stdio;

use thalweg::{Point, Statistics};
use thalweg_capture::statistics::Asked;
use thalweg_capture::{Capture, Manifest, Prompts, check};

use crate::support::{Folder, command, distance, lines, model, ok, refused, run_of, same, text};

const WORDS: [&str; 9] = [
    "--prompts-per-shard",
    "7",
    "--batch-tokens",
    "64",
    "--covariance",
    "--top",
    "3",
    "--histogram",
    "-2,2,16",
];

fn call(folder: &Folder, out: &str) -> std::process::Command {
    let mut call = run_of("statistics", &folder.path("prompts.txt"), &folder.path(out), &WORDS);
    call.args(["--sites", "blocks.1.hook_resid_post,blocks.2.attn.hook_z"]);
    call
}

#[test]
fn parts_of_any_number_of_workers_merge_to_the_same_bytes() {
    let folder = Folder::new("statistics-workers");
    folder.write("prompts.txt", &text(60));
    let said = ok(&mut call(&folder, "alone"));
    assert!(said.contains("9 parts, 54 prompts"), "{said}");
    let workers: Vec<_> =
        (0..3).map(|_| call(&folder, "together").stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    ok(command(&["merge"]).arg(folder.path("together")));
    same(&folder.path("alone"), &folder.path("together"));
    for share in ["1/2", "0/2"] {
        ok(call(&folder, "shares").args(["--worker", share]));
    }
    same(&folder.path("alone"), &folder.path("shares"));
    assert!(ok(command(&["check"]).arg(folder.path("shares"))).contains("whole"));
    assert!(ok(command(&["show"]).arg(folder.path("shares"))).contains("9 of 9"));
}

#[test]
fn merged_parts_are_one_pass_over_everything() {
    let (folder, model) = (Folder::new("statistics-pass"), model());
    let prompts = Prompts::open(folder.write("prompts.txt", &text(60)), "text").unwrap();
    let sites = [Point::ResidPost.at(1), Point::Z.at(2)];
    let asked =
        Asked { covariance: true, top: 3, histogram: Some((-2.0, 2.0, 16)), ..Asked::default() };
    let capture =
        |out: &str| Capture::new(prompts.clone(), folder.path(out)).sites(sites).batch_tokens(1);
    capture("parts").prompts_per_shard(10).statistics(&model, &asked).unwrap();
    capture("whole").prompts_per_shard(60).statistics(&model, &asked).unwrap();
    for site in sites {
        let open = |out: &str| {
            Statistics::open(folder.path(out).join(format!("{site}.safetensors"))).unwrap()
        };
        let (parts, whole) = (open("parts"), open("whole"));
        assert_eq!((parts.count(), parts.prompts()), (whole.count(), whole.prompts()));
        assert_eq!(parts.prompts(), 60, "an empty row is a prompt without vectors");
        for (a, b) in [
            (parts.mean(), whole.mean()),
            (parts.variance(), whole.variance()),
            (parts.covariance_matrix(), whole.covariance_matrix()),
        ] {
            assert!(distance(&a.unwrap(), &b.unwrap()) < 1e-12);
        }
        assert!(parts.counts().unwrap() == whole.counts().unwrap());
        let lines = lines(60);
        for feature in 0..16 {
            let maxima = parts.maxima(feature).unwrap();
            assert_eq!(maxima, whole.maxima(feature).unwrap());
            for maximum in maxima {
                let ids = model.tokens(&lines[maximum.prompt]).unwrap();
                assert!(maximum.pos < ids.width());
            }
        }
    }
    assert_eq!(Manifest::open(folder.path("parts")).unwrap().totals.unwrap().empty, 6);
}

#[test]
fn what_does_not_belong_is_found() {
    let folder = Folder::new("statistics-faults");
    folder.write("prompts.txt", &text(20));
    let site = Point::ResidPost.at(1);
    ok(&mut call(&folder, "out"));
    let said = refused(call(&folder, "out").args(["--first", "2"]));
    assert!(said.contains("begun with statistics.first 1, and now it is 2"), "{said}");
    let file = folder.path("out").join("part-00001").join(format!("{site}.safetensors"));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let faults = check(folder.path("out")).unwrap();
    assert!(
        faults.len() == 1 && faults[0].contains("part-00001") && faults[0].contains("damaged"),
        "{faults:?}"
    );
    assert!(refused(command(&["merge"]).arg(folder.path("out"))).contains("part-00001"));
    std::fs::remove_dir_all(folder.path("out").join("part-00001")).unwrap();
    assert!(
        refused(command(&["merge"]).arg(folder.path("out"))).contains("1 of 3 parts are missing")
    );
    ok(&mut call(&folder, "out"));
    assert!(check(folder.path("out")).unwrap().is_empty());
    let mut bad = run_of(
        "statistics",
        &folder.path("prompts.txt"),
        &folder.path("bad"),
        &["--histogram", "2,1,4"],
    );
    let said = refused(&mut bad);
    assert!(said.contains("expected low < high"), "{said}");
}
