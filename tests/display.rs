//! What a cell shows reaches whoever reads it: thalweg's kernel, another kernel on evcxr, a person.
//! Each case runs in a child process, for the environment says who reads.
#![allow(clippy::print_stdout)] // part of what a cell writes

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use thalweg::ndarray::{Array2, array};
use thalweg::prelude::*;
use thalweg::{Content, Show, anyhow};

use crate::support::change::tokens;
use crate::support::child::{case, child, written};
use crate::support::{model, scratch};

/// What the kernel might choose.
const MARK: &str = "\u{2}d41d8cd98f";
const EVIL: &str = "</script><mark>";

fn kernel() -> Vec<(&'static str, &'static Path)> {
    // A kernel on evcxr too: what it reads goes before.
    vec![("THALWEG_DISPLAY", Path::new(MARK)), ("EVCXR_IS_RUNTIME", Path::new("1"))]
}

fn stock() -> Vec<(&'static str, &'static Path)> {
    vec![("EVCXR_IS_RUNTIME", Path::new("1"))]
}

/// The messages in what a child wrote, in order.
fn messages(out: &str) -> Vec<Value> {
    let read = |line: &str| Some(serde_json::from_str(line.split_once(MARK)?.1).unwrap());
    out.lines().filter_map(read).collect()
}

fn grid() -> Grid {
    Grid::from_array(array![[0.5, -1.0], [2.0, 0.0]], &[Axis::Layer, Axis::Head], "nats").unwrap()
}

fn figure() -> Figure {
    heatmap(&grid()).unwrap().title(EVIL)
}

fn cell(case: &str) {
    match case {
        "everything" => everything(),
        "updates" => {
            let shown = display(&0);
            (1..=200).for_each(|i| shown.update(&i));
            shown.clear();
            clear_output(true);
            clear_output(false);
        }
        "two" => {
            display(&figure().title("first"));
            display("some text");
            display(&grid()).update(&grid().name("second"));
            clear_output(false);
        }
        other => panic!("no case {other}"),
    }
}

fn everything() {
    print!("the beginning of a line, ");
    display(&figure());
    display(&grid());
    display("two\nlines");
    display(&format!("{:.1}", 3.25));
    display(&Html("<b>bold</b>".to_owned()));
    display(&Markdown("*soft*".to_owned()));
    display(&Content::text("json").with("application/json", "{\n  \"a\": [1, 2]\r\n}\n"));
    display(&Content::text("none").with("application/json", "{\"a\":"));
    display(&model());
    display(&tokens());
    display(&Plan::new().cache(Point::Z));
    display(&vec![1.0, 2.0]);
    figure().evcxr_display(); // the value of the cell
}

#[test]
fn each_thing_shown_is_one_line_of_json_that_holds_it() {
    let test = "display::each_thing_shown_is_one_line_of_json_that_holds_it";
    if let Some(case) = case() {
        return cell(&case);
    }
    let (out, _) = written(child(test, "everything", &kernel()));
    assert!(out.contains(&format!("the beginning of a line, {MARK}{{")), "{out}");
    let all = messages(&out);
    assert_eq!(all.len(), 12);
    let data = |i: usize, mime: &str| &all[i]["data"][mime];
    let plotly = data(0, "application/vnd.plotly.v1+json");
    assert!(plotly["data"].is_array() && plotly["layout"].is_object(), "{plotly}");
    assert!(!plotly.to_string().contains(EVIL), "plotly reads some HTML in titles");
    for mime in ["text/html", "image/svg+xml"] {
        let text = data(0, mime).as_str().unwrap();
        assert!(!text.contains(EVIL) && text.contains("&lt;mark&gt;"), "{mime}: {text}");
    }
    assert_eq!(data(1, "text/html"), &Value::from(grid().to_html()));
    assert_eq!(data(2, "text/plain"), "two\nlines");
    assert_eq!(data(3, "text/plain"), "3.2");
    assert_eq!(data(4, "text/html"), "<b>bold</b>");
    assert_eq!(data(5, "text/markdown"), "*soft*");
    assert_eq!(data(6, "application/json")["a"][1], 2);
    assert_eq!(data(7, "application/json"), "{\"a\":", "no JSON: as it is");
    assert!(data(8, "text/plain").as_str().unwrap().starts_with("Model parts"));
    assert_eq!(data(11, "text/plain"), "[1.0, 2.0]");
    let mut ids: Vec<_> = all.iter().filter_map(|m| m["display_id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 12, "an id of its own each");
    let value = "EVCXR_BEGIN_CONTENT application/vnd.plotly.v1+json\n";
    assert_eq!(out.matches(value).count(), 1, "the value of the cell, as any kernel reads it");
    assert!(all.iter().all(|m| m["metadata"].is_object() && m.get("update").is_none()));
}

#[test]
fn two_hundred_updates_come_in_order_and_a_cell_can_be_cleared() {
    let test = "display::two_hundred_updates_come_in_order_and_a_cell_can_be_cleared";
    if let Some(case) = case() {
        return cell(&case);
    }
    let (out, _) = written(child(test, "updates", &kernel()));
    let mut all = messages(&out);
    let clears = all.split_off(202);
    for (i, message) in all.iter().enumerate() {
        let expected = if i <= 200 { i.to_string() } else { String::new() };
        assert_eq!(message["data"]["text/plain"], expected.as_str());
        assert_eq!(message["display_id"], all[0]["display_id"]);
        assert_eq!(message.get("update"), (i > 0).then_some(&Value::from(true)));
    }
    let clear = |wait: bool| serde_json::json!({"clear": true, "wait": wait});
    assert_eq!(clears, [clear(true), clear(false)]);
}

#[test]
fn stock_evcxr_draws_the_last_and_has_a_line_of_each() {
    let test = "display::stock_evcxr_draws_the_last_and_has_a_line_of_each";
    if let Some(case) = case() {
        return cell(&case);
    }
    let (out, err) = written(child(test, "two", &stock()));
    assert!(err.is_empty() && !out.contains(MARK), "{err}");
    let blocks = out.matches("EVCXR_BEGIN_CONTENT text/html\n").count();
    assert_eq!(blocks, 3, "a figure, a grid and its update: {out}");
    let mut place = 0;
    for line in ["heatmap: first", "some text\n", "Grid ", "second"] {
        place += out[place..].find(line).unwrap_or_else(|| panic!("{line:?} is not in {out}"));
    }
    assert_eq!(out.matches("(stock evcxr draws only what a cell shows last)\n").count(), 3);
}

#[test]
fn a_program_prints_the_text() {
    let test = "display::a_program_prints_the_text";
    if let Some(case) = case() {
        return cell(&case);
    }
    let (out, err) = written(child(test, "two", &[]));
    assert!(err.is_empty(), "{err}");
    assert!(!out.contains("EVCXR") && !out.contains('<'), "{out}");
    for text in ["heatmap: first", "some text\n", &grid().to_string()] {
        assert!(out.contains(text), "{text:?} is not in {out}");
    }
}

#[test]
fn nothing_fails_where_nobody_reads() {
    let test = "display::nothing_fails_where_nobody_reads";
    if case().is_some() {
        println!("\nready");
        // Until the reader is gone.
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        (0..3).for_each(|_| cell("two"));
        clear_output(false);
        figure().evcxr_display();
        std::process::exit(42); // past the test runner, which would fail
    }
    for variables in [kernel(), stock(), vec![]] {
        let mut command = child(test, "closed", &variables);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = piped.spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        assert!(out.lines().any(|line| line.unwrap() == "ready")); // then it is dropped
        drop(process.stdin.take());
        assert_eq!(process.wait().unwrap().code(), Some(42));
    }
}

/// Slow enough to be told of, each in its own way.
fn slow(case: &str) {
    let pause = || std::thread::sleep(std::time::Duration::from_millis(100));
    let slowly = Intervention::custom("slow", move |x| {
        pause();
        Ok(x.copy())
    });
    let slowly = Plan::new().intervene(Point::Z.at(0), slowly);
    let (model, tokens) = (model(), tokens());
    match case {
        "loop" => {
            for _ in progress(0..30, EVIL).unit("steps") {
                pause();
            }
        }
        "unknown" => {
            for i in progress((0..).take_while(|_| true), "reading") {
                pause();
                if i == 25 {
                    break;
                }
            }
        }
        "sweep" => drop(model.sweep(&tokens, &vec![slowly; 27], &Metric::logit(1)).unwrap()),
        "generate" => drop(model.generate(&tokens, 25, &slowly).unwrap()),
        other => panic!("no case {other}"),
    }
}

#[test]
fn a_long_call_says_its_pace_and_the_time_left_and_how_it_ended() {
    let test = "display::a_long_call_says_its_pace_and_the_time_left_and_how_it_ended";
    if let Some(case) = case() {
        return slow(&case);
    }
    // All at once: each takes about three seconds.
    let run = |case: &'static str, variables: Vec<(&'static str, &'static Path)>| {
        std::thread::spawn(move || written(child(test, case, &variables)))
    };
    let cases = ["loop", "unknown", "sweep", "generate"];
    let here = cases.map(|case| run(case, kernel()));
    let [stock, program] = [run("loop", stock()), run("loop", vec![])];
    let here = here.map(|thread| messages(&thread.join().unwrap().0));
    for (case, all) in cases.iter().zip(&here) {
        assert!((2..=9).contains(&all.len()), "{case}: {} messages: {all:?}", all.len());
        assert!(all.iter().all(|m| m["display_id"] == all[0]["display_id"]), "one bar");
        assert!(all.iter().enumerate().all(|(i, m)| m.get("update").is_some() == (i > 0)));
    }
    let text = |message: &Value| message["data"]["text/plain"].as_str().unwrap().to_owned();
    let ends = here.each_ref().map(|all| (text(&all[0]), text(all.last().unwrap())));
    for ((first, last), [begin, unit, end]) in ends.iter().zip([
        [EVIL, " of 30 steps, ", ": 30 steps in "],
        ["reading: ", ", ", "reading: stopped at 25 after "],
        ["sweep: ", " of 27 plans, ", "sweep: 27 plans in "],
        ["generate: ", " of 25 tokens, ", "generate: 25 tokens in "],
    ]) {
        assert!(first.starts_with(begin) && first.contains(unit), "{first}");
        assert!(first.contains("/s") && (first.ends_with(" s left") || *begin == *"reading: "));
        assert!(last.contains(end), "{last}");
    }
    let html = here[0][0]["data"]["text/html"].as_str().unwrap();
    assert!(html.contains("<progress") && !html.contains(EVIL), "{html}");
    let ((out, none), (silent, err)) = (stock.join().unwrap(), program.join().unwrap());
    assert!(none.is_empty() && !silent.contains("steps"), "{none}{silent}");
    for text in [out, err] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("steps")).collect();
        assert!((2..=3).contains(&lines.len()), "{lines:?}");
        assert!(lines[0].contains("/s, ") && lines[0].ends_with(" s left"), "{lines:?}");
        assert!(lines.last().unwrap().contains(": 30 steps in "), "{lines:?}");
    }
}

#[test]
fn quick_calls_show_nothing() -> anyhow::Result<()> {
    let test = "display::quick_calls_show_nothing";
    if case().is_none() {
        for variables in [kernel(), stock(), vec![]] {
            let (out, err) = written(child(test, "quick", &variables));
            assert!(messages(&out).is_empty() && !out.contains("EVCXR"), "{out}");
            assert!(!out.contains("plans") && err.is_empty(), "{out}{err}");
        }
        return Ok(());
    }
    let (model, tokens, dir) = (model(), tokens(), scratch("quick"));
    model.save(&dir)?;
    Model::load(&dir)?.generate(&tokens, 3, &Plan::new())?;
    let plan = Plan::new().intervene(Point::Z.at(0), Intervention::zero());
    model.sweep(&tokens, &[plan.clone(), plan], &Metric::logit(1))?;
    let mut list = [Statistics::at(Point::Z.at(0))];
    statistics(&model, [Ok(tokens.clone())], &Plan::new(), &mut list)?;
    assert_eq!(progress([1, 2, 3], "adding").sum::<i32>(), 6);
    Ok(())
}

#[test]
fn what_a_display_returns_can_be_kept_between_cells() {
    fn kept<T: Clone + Send + std::fmt::Debug + 'static>() {}
    kept::<Shown>();
    kept::<Html>();
    kept::<Markdown>();
    kept::<Content>();
    fn shows<T: Show>() {}
    shows::<Figure>();
    shows::<Grid>();
    shows::<Sweep>();
    shows::<thalweg::Top>();
    shows::<Cache>();
    shows::<Run>();
    shows::<Tensor>();
    shows::<Array2<f64>>();
}
