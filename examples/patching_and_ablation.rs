//! Exported from notebooks/06_patching_and_ablation.ipynb by `thalweg-kernel export`.
//!
//! Run it with `cargo run --example patching_and_ablation`. What the notebook shows is written to the folder `shown`, and as text to the terminal.

#![allow(unused, clippy::print_stdout)] // as in a notebook

use thalweg::prelude::*;

fn most(grid: &Grid) -> f64 {
    grid.ranked()[0].value.abs()
} // the largest magnitude

fn main() -> anyhow::Result<()> {
    // Relative paths in cells start at the notebook's folder.
    shown::begin(concat!(env!("CARGO_MANIFEST_DIR"), "/notebooks"))?;

    // # Patching and ablation
    //
    // *Where is the information, who moves it, and what is lost without them?*
    //
    // Looking at activations shows what is there, not what is used. To learn what is used, change something and see what the answer
    // does. There are two ways to do it.
    //
    // - **Patching**: run the model on a prompt, and put into it one activation from a run on *another* prompt. If the answer follows,
    //   that activation carries what differs between the two prompts (Vig et al. 2020; Meng et al. 2022).
    // - **Ablation**: take a component out, and put something empty in its place. What is lost is what the component did.
    //
    // The task is *indirect object identification*, IOI for short (Wang et al. 2022): in "When Mary and John went to the store , John gave
    // a drink to" the answer is Mary, the name that was said once. This notebook finds the path on which the model learns that John was
    // said twice. You need notebook 01 for it, and no more.

    // [1]
    let model = Model::load("../data/models/tiny-world")?;
    let prompts = Prompts::load("../data/prompts/ioi.json")?.labelled("T1 ABBA")?.first(12);
    let set = prompts.aligned(&model)?;
    let clean = set.clean.clone();
    let corrupt = set.corrupted("swap")?.clone();
    let metric = Metric::logit_diff(&set.right, &set.wrong);
    let clean_value =
        metric.of(&model.logits(&clean)?, &clean)?.mean(Kind::Double).double_value(&[]);
    let corrupt_value =
        metric.of(&model.logits(&corrupt)?, &corrupt)?.mean(Kind::Double).double_value(&[]);
    println!("clean:   {}   logit difference {clean_value:+.2}", prompts.clean()[0]);
    println!("corrupt: {}   logit difference {corrupt_value:+.2}", prompts.corrupted("swap")?[0]);

    // Twelve prompts of one template, each with a *corrupt* twin in which a single word is another: the second mention of the giver, called
    // **S2**. That word turns the answer round. The measure is the **logit difference**: the logit of the right name of the clean prompt less
    // that of the other name. It is far above zero on the clean prompts, and far below on the corrupt ones.
    //
    // From here on the difference is rescaled so that it reads as *recovery*: **0** is the corrupt run as it is, **1** is the clean run. A
    // patch with recovery 1 brings back the whole answer, one with recovery 0 does nothing.
    //
    // ## Where is the information?
    //
    // Take the corrupt run. Replace the residual stream at one position, before one block, by that of the clean run. Do it for every
    // position and every layer.
    //
    // **Before you run it:** at which position must the recovery be 1 before the first block? At which position must it be 1 at the very
    // end? Where in between do you expect the change?

    // [2]
    let pair = Patching::new(&model, &clean, &corrupt)?.normalised();
    let stream = pair.grid(Point::ResidPre, &[Axis::Pos], &metric)?;
    shown::show!(
        "02_where_is_the_information",
        heatmap(&stream)?.title("recovery from the stream before each block, by position")
    );

    // Where all prompts have the same word, the axis shows it; elsewhere it shows the role of the place: IO (the name said once), S1 and S2
    // (the giver's two mentions). The prediction is made at the last token, "to".
    //
    // Two cells were certain before the run. Before the first block the clean and the corrupt stream differ at S2 and nowhere else. After the
    // last block only the last position is read. What the figure adds is *when* the information moves, and that it is nowhere else in
    // between. (The bands of the next figure come from the prompts: in some pairs the two runs lie further apart than in others.)

    // [3]
    let (s2, end) = (set.position("S2")? as i64, set.position("END")? as i64);
    let at_s2 = stream.select(Axis::Pos, s2)?;
    let at_end = stream.select(Axis::Pos, end)?;
    shown::show!(
        "03_where_is_the_information",
        lines(&Grid::stack(Axis::Series, &[("S2", &at_s2), ("END, the last token", &at_end)])?)?
            .title("recovery from the stream before each block")
    );

    // ## Who moves it?
    //
    // Only attention moves information from one position to another. So one of the attention outputs at the last position must carry
    // it. The MLPs may then work on it in place.
    //
    // **Before you run it:** if attention in one layer has recovery 1, can an MLP in a later layer have recovery above 0 too?

    // [4]
    let written = Grid::stack(
        Axis::Series,
        &[
            ("output of attention", &pair.grid(Point::AttnOut, &[Axis::Pos], &metric)?),
            ("output of the MLP", &pair.grid(Point::MlpOut, &[Axis::Pos], &metric)?),
        ],
    )?;
    let by_layer = pair.grid(Point::AttnOut, &[], &metric)?;
    let mover = by_layer.ranked()[0].index[0];
    println!("the attention of layer {mover} alone: recovery {:.2}", by_layer.at(&[mover as i64])?);
    shown::show!(
        "04_who_moves_it",
        heatmap(&written)?.title("recovery from what each block writes, by position")
    );

    // One layer's attention carries all of it. And yes, an MLP can have a share as well: recoveries are no parts of a whole. The attention
    // writes the message, an MLP further up reads it and says it louder. Patching either brings something back.
    //
    // ## Which heads, and what of them?
    //
    // A head has a *query* (what it looks for), *keys* (what each place offers), *values* (what each place would hand over), a *pattern*
    // (the attention weights that queries and keys make) and an output *z*, the values weighted by the pattern. Patch each of them, head by
    // head, at all positions.
    //
    // **Before you run it:** the corrupt prompt has another name at S2. Will the heads look elsewhere (pattern), or look at the same place
    // and find something else there (values)?

    // [5]
    let parts = pair.head_all_pos_every(&metric)?;
    shown::show!(
        "05_which_heads_and_what_of_them",
        heatmap(&parts)?.title("recovery from parts of each head")
    );

    // The pattern changes next to nothing; the values change the answer. The heads look at S2 whoever stands there, and copy what they find.
    // (Two neighbouring heads share one key and one value here: *grouped-query attention*, Ainslie et al. 2023. So in the panel of V every
    // column stands for its pair, and a head that does nothing can look as if it mattered.)
    //
    // Look at where these heads look, from the last token of the first prompt.

    // [6]
    let movers = top_heads(&parts.select(Axis::Series, 0)?, 6)?; // by their output z
    println!("(layer, head), best first: {movers:?}");
    let look = model.run(&clean, &Plan::new().cache(vec![Point::Pattern, Point::Z]))?;
    let from_end = attention_pattern(&look.cache.row(0)?, mover)?.select(Axis::Query, -1)?;
    shown::show!(
        "06_which_heads_and_what_of_them",
        heatmap(&from_end)?
            .title(&format!("layer {mover}: where each head looks from the last token"))
    );

    // In GPT-2 small the same work takes heads in a middle layer that move "this name was said twice", and later heads that look at the
    // name said once and copy it (Wang et al. 2022). Here the move is done in one step, by several heads side by side. Notebook 05 follows
    // what happens to the message.
    //
    // ## Is that all of them?
    //
    // Patch the best head, then the best two, and so on: the clean `z` into the corrupt run. The control is as many other heads, drawn at
    // random.
    //
    // **Before you run it:** will the curve of the best heads rise at once, or step by step?

    // [7]
    let put_back = Intervention::patch(&look.cache);
    let others = random_heads(&model, movers.len(), &movers, 1)?;
    let best_heads = ablation_curve(&model, &corrupt, &movers, &put_back, &metric)?;
    let random = ablation_curve(&model, &corrupt, &others, &put_back, &metric)?;
    shown::show!(
        "07_is_that_all_of_them",
        lines(&Grid::stack(
            Axis::Series,
            &[("best heads", &best_heads), ("random heads", &random)]
        )?)?
        .reference(clean_value, "clean run")?
        .title("logit difference of the corrupt run after k heads are patched")
    );

    // Each head adds its share, like people pulling one rope. No single head is "the" head: one alone does not even turn the sign of the
    // answer.
    //
    // ## Both directions
    //
    // So far clean went into corrupt: is this part *enough* to bring the answer back? The other direction puts corrupt into clean: is this
    // part *needed*? The two can differ. If either of two heads would do, each is enough and neither is needed (Heimersheim and Nanda 2024).
    //
    // **Before you run it:** the heads pull one rope. On the diagonal, above it or below?

    // [8]
    let noise = Patching::new(&model, &clean, &corrupt)?.direction(Direction::Noise);
    let enough = pair.grid(Point::Z, &[Axis::Head], &metric)?.name("enough: clean into corrupt");
    let needed = noise
        .clone()
        .normalised()
        .grid(Point::Z, &[Axis::Head], &metric)?
        .name("needed: corrupt into clean");
    shown::show!("08_both_directions", versus(&enough, &needed)?);

    // Close to the diagonal: shares that add up, no head that stands in for another. On larger models this is the exception. Always patch
    // both ways.
    //
    // ## Ablation asks another question
    //
    // Patching shows what *differs* between the twins. A head that does the same on both is invisible to it, however much it matters. Ablation
    // sees it. But what should be put in the place of what is taken out?
    //
    // - **zero**: no output at all. The model never saw that, so the damage of an odd input is measured too.
    // - **mean**: the average output over prompts and positions. It keeps what all outputs have in common.
    // - **resample**: the output on another prompt of the same template, here drawn four times (Chan et al. 2022). It keeps everything that
    //   belongs to the template and mixes up the names.
    //
    // **Before you run it:** which heads will show up under ablation that patching did not show?

    // [9]
    let by = [Axis::Head];
    let zero = ablation(&model, &clean, Point::Z, &by, &Ablation::zero(), &metric)?;
    let mean = ablation(&model, &clean, Point::Z, &by, &Ablation::mean(&clean), &metric)?;
    let resampled =
        ablation(&model, &clean, Point::Z, &by, &Ablation::resample(&clean, 4, 1), &metric)?;
    let patched = noise.grid(Point::Z, &by, &metric)?.map(|value| value - clean_value);
    shown::show!(
        "09_ablation_asks_another_question",
        heatmap(&Grid::stack(
            Axis::Series,
            &[
                ("corrupt twin", &patched),
                ("zero", &zero),
                ("mean", &mean),
                ("resampled", &resampled),
            ]
        )?)?
        .title("change of the logit difference without each head")
    );

    // A whole layer appears that patching left white, and its heads go both ways: without some of them the logit difference falls, without
    // others it *rises*. They do the same on the clean and on the corrupt prompt, so that the twins cannot show them: some raise one of the
    // two names, some the other. The sum of what they say decides nothing; the message from S2 does.
    //
    // <details><summary>How this misleads</summary>
    //
    // "Which heads matter?" has no answer before you say *compared with what*. Patching compares with the twin: what both runs share is
    // invisible. Ablation compares with an empty place: what all prompts share counts in full. With the corrupt twin `ABC` (a third name at S2)
    // you would see a third picture. And a positive change does not make a head harmful: it holds a balance, and you have taken one side away.
    // </details>
    //
    // ## Zero, mean and resample disagree
    //
    // Each point is a head. On the diagonal zero ablation and resampling say the same.
    //
    // **Before you run it:** a head that writes the same vector on every prompt: where does it lie?

    // [10]
    let apart = zero.minus(&resampled)?;
    for cell in apart.ranked().iter().take(5) {
        println!(
            "{}: zero {:+.2}, resampled {:+.2}",
            cell.labels.join(" "),
            zero.at(&[cell.index[0] as i64, cell.index[1] as i64])?,
            resampled.at(&[cell.index[0] as i64, cell.index[1] as i64])?
        );
    }
    shown::show!(
        "10_zero_mean_and_resample_disagree",
        versus(&resampled.clone().name("resampled"), &zero.clone().name("zero"))?
    );

    // A head that always writes the same vector changes nothing when it is resampled, and may change much when it is zeroed: later
    // components count on that vector as if it were a bias. Points away from the diagonal are heads with such a constant part, or heads whose
    // output on another prompt does active harm. Neither number is wrong. State which one you used.
    //
    // ## Attribution patching: one gradient for all of it
    //
    // Every cell above took a run of its own. *Attribution patching* (Nanda 2022) estimates all cells from two runs and one gradient: the
    // change of the activation times the slope of the metric. It is right where the model is nearly straight. How right is it? Compare it
    // with exact patching, kind by kind.
    //
    // The weak point is known: attention that is already at 1 has a slope of 0, so that a gradient sees nothing where patching a query or
    // key would move everything. The *QK fix* (Kramár et al. 2024) computes the changed pattern exactly and takes the gradient after it.
    //
    // **Before you run it:** for which kinds of activation will the estimate be worst?

    // [11]
    let kinds = [
        (Point::ResidPre, Axis::Pos),
        (Point::AttnOut, Axis::Pos),
        (Point::MlpOut, Axis::Pos),
        (Point::Z, Axis::Head),
        (Point::V, Axis::KvHead),
        (Point::K, Axis::KvHead),
        (Point::Q, Axis::Head),
    ];
    let attribution_patching =
        AttributionPatching::new(&metric, Direction::Denoise).points(kinds.map(|(point, _)| point));
    let plain = attribution_patching.run(&model, &clean, &corrupt)?;
    let fixed = attribution_patching.clone().qk_fix().run(&model, &clean, &corrupt)?;
    let mut quality = Vec::new();
    for (point, by) in kinds {
        let compared = plain.compare(point, &[by])?; // one exact run a cell
        let with_fix = thalweg::Comparison::of(&fixed.grid(point, &[by])?, &compared.exact)?;
        quality.push([compared.pearson, with_fix.pearson]);
    }
    let quality = Grid::of(
        &Tensor::from_slice2(&quality),
        &[Axis::Component, Axis::Series],
        "Pearson's correlation",
    )?
    .relabel(Axis::Component, &kinds.map(|(point, _)| format!("{point:?}")))?
    .relabel(Axis::Series, &["one gradient", "with the QK fix"])?
    .name("estimated against exact patching, by kind of activation");
    shown::show!(
        "11_attribution_patching_one_gradient_for_all",
        bars(&quality)?.along(Axis::Component)?
    );

    // The queries, head by head: exact recovery along x, the estimate along y, in logits and averaged over the prompts. Left one gradient,
    // right the same with the fix.

    // [12]
    let queries = plain.compare(Point::Q, &[Axis::Head])?;
    let exact = queries.exact.mean(Axis::Batch)?.name("exact");
    let estimate = queries.estimate.mean(Axis::Batch)?.name("estimate");
    let fixed_estimate = fixed.grid(Point::Q, &[Axis::Head])?.mean(Axis::Batch)?.name("estimate");
    shown::show!(
        "12_attribution_patching_one_gradient_for_all",
        Figure::row(&[
            versus(&exact, &estimate)?.title("queries, one gradient"),
            versus(&exact, &fixed_estimate)?.title("queries, with the QK fix")
        ])
    );

    // Look at the scale of the axes before you worry: patching queries does little here, as the panel of heads has shown, so that the worst
    // estimate is about the smallest effects. Use estimates to choose what to patch, then patch.
    //
    // ## The finding, asserted

    // [13]
    let restored = (best_heads.at(&[4])? - corrupt_value) / (clean_value - corrupt_value);
    let restored_by_random = (random.at(&[4])? - corrupt_value) / (clean_value - corrupt_value);
    let (by_values, by_pattern) =
        (most(&parts.select(Axis::Series, 3)?), most(&parts.select(Axis::Series, 4)?));
    let unseen = zero.ranked().swap_remove(0); // the head that matters most when zeroed
    let seen = patched.at(&[unseen.index[0] as i64, unseen.index[1] as i64])?.abs();
    let (z, q, q_fixed) = (
        quality.get(&["Z", "one gradient"])?,
        quality.get(&["Q", "one gradient"])?,
        quality.get(&["Q", "with the QK fix"])?,
    );
    println!(
        "recovery: attention of layer {mover} {:.2}; its four best heads {restored:.2}; four random heads {restored_by_random:.2}",
        by_layer.at(&[mover as i64])?
    );
    println!(
        "largest recovery of one head's values {by_values:.2}, of one head's pattern {by_pattern:.2}"
    );
    println!(
        "{}: {:+.2} when zeroed, {seen:.2} when patched",
        unseen.labels.join(" "),
        unseen.value
    );
    println!("zero and resample ablation differ by up to {:.2}", most(&apart));
    println!("Pearson of estimates: z {z:.3}, queries {q:.3}, queries with the fix {q_fixed:.3}");
    assert!(clean_value > 2.0 && corrupt_value < -2.0, "the model answers both twins rightly");
    assert!(
        by_layer.at(&[mover as i64])? > 0.8,
        "one layer's attention moves the message from S2 to the end"
    );
    assert!(
        restored > 0.8 && restored_by_random < 0.2,
        "a few heads carry it, random heads do not"
    );
    assert!(by_values > 3.0 * by_pattern, "by what they copy, not by where they look");
    assert!(unseen.value.abs() > 4.0 * seen, "ablation finds heads that patching does not see");
    assert!(most(&apart) > 0.25, "zero and resample ablation disagree");
    assert!(
        z > 0.95 && q_fixed > 0.95 && q < q_fixed,
        "estimates are good for outputs, and for queries with the fix"
    );

    // **Exercises**
    //
    // 1. *(easy)* Use the corruption `"ABC"` (a third name at S2) in place of `"swap"`. What is the corrupt logit difference now, and does the same
    //    layer move the message?
    // 2. *(medium)* The corruption `"random name"` changes **IO**, the right answer itself, and leaves S2 alone. Patch the stream. Does this name
    //    move in the same layer as the message from S2?
    // 3. *(easy)* In the panel of V neighbouring heads have equal numbers. Show that they must.
    // 4. *(medium)* Mean ablation needs a reference. Take the mean over the *corrupt* twins instead of the clean prompts. For which
    //    kind of ablation does the choice between the two matter more, mean or resample? Try the MLPs too.
    // 5. *(hard)* *Causal tracing* (Meng et al. 2022) is patching with noise for a twin: blur the embedding of a word, and put back one
    //    activation of the clear run at a time. `tiny-world-facts` is `tiny-world` after one more stage of training. In which MLPs does each of
    //    the two look up a capital: at the country, or at the last word? (`CausalTrace`, prompts `fact`, kind `capital of`)
    //
    // **On a real Llama:** the same calls, with `Model::load("path/to/Llama-3.2-1B")?` and prompts whose twins have equally many tokens
    // (`aligned` says which do not). Patch layers first, then positions, then heads; begin with attribution patching, since every exact cell is a
    // run.

    Ok(())
}

/// What the notebook shows: its text goes to the terminal, figures and tables also to files in the folder `shown`.
mod shown {
    use std::fmt::Debug;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use thalweg::anyhow::{Context, Result, anyhow};
    use thalweg::{Content, Show};

    /// The folder for files, and the names used so far.
    static FILES: Mutex<(PathBuf, Vec<String>)> = Mutex::new((PathBuf::new(), Vec::new()));

    /// Files go to where the program was started; relative paths in cells start at `notebook`.
    pub(super) fn begin(notebook: &str) -> Result<()> {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        FILES.lock().map_err(|_| anyhow!("another thread failed"))?.0 = here.join("shown");
        std::env::set_current_dir(notebook)
            .with_context(|| format!("the notebook's folder {notebook} is gone"))
    }

    /// Shows the value of an expression, whatever its type.
    macro_rules! show {
        ($name:expr, $value:expr) => {{
            use $crate::shown::{ByContent as _, ByDebug as _, ByEither as _, ByItself as _};
            (&&&&$crate::shown::Value(&$value)).show($name)
        }};
    }
    pub(super) use show;

    /// Shows `value` as the library's `display` does in a notebook.
    pub(super) fn display<T: Show + ?Sized>(name: &str, value: &T) {
        written(name, &value.content());
    }

    fn written(name: &str, content: &Content) {
        println!("{}", content.get("text/plain").unwrap_or_default().trim_end());
        match write(name, content) {
            Ok(paths) if paths.is_empty() => {}
            Ok(paths) => println!("  -> {}", paths.join(", ")),
            Err(error) => panic!("cannot write what cell {name} shows: {error:#}"),
        }
    }

    fn write(name: &str, content: &Content) -> Result<Vec<String>> {
        let endings = [("image/svg+xml", "svg"), ("text/html", "html"), ("text/markdown", "md")];
        let parts = endings.map(|(mime, ending)| (ending, content.get(mime)));
        if parts.iter().all(|(_, data)| data.is_none()) {
            return Ok(Vec::new());
        }
        let mut files = FILES.lock().map_err(|_| anyhow!("another thread failed"))?;
        files.1.push(name.to_owned());
        let times = files.1.iter().filter(|used| *used == name).count();
        let name = if times > 1 { format!("{name}_{times}") } else { name.to_owned() };
        std::fs::create_dir_all(&files.0)?;
        let mut paths = Vec::new();
        for (ending, data) in parts {
            let Some(data) = data else { continue };
            let head =
                if ending == "html" { "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n" } else { "" };
            let file = format!("{name}.{ending}");
            std::fs::write(files.0.join(&file), format!("{head}{data}\n"))?;
            paths.push(format!("shown/{file}"));
        }
        Ok(paths)
    }

    /// What `show!` is given; of the traits below the first that fits the type counts.
    pub(super) struct Value<'a, T>(pub(super) &'a T);

    pub(super) trait ByEither {
        fn show(&self, name: &str);
    }
    impl<T: Show + Debug> ByEither for &&&Value<'_, T> {
        fn show(&self, name: &str) {
            let content = self.0.content();
            match content.parts().any(|(mime, _)| mime != "text/plain") {
                true => written(name, &content),
                false => Value(self.0).show(name),
            }
        }
    }

    pub(super) trait ByContent {
        fn show(&self, name: &str);
    }
    impl<T: Show> ByContent for &&Value<'_, T> {
        fn show(&self, name: &str) {
            written(name, &self.0.content());
        }
    }

    /// A type of the notebook that has an `evcxr_display` of its own.
    pub(super) trait Itself {
        fn show(&self);
    }
    pub(super) trait ByItself {
        fn show(&self, name: &str);
    }
    impl<T: Itself> ByItself for &Value<'_, T> {
        fn show(&self, _: &str) {
            self.0.show();
        }
    }

    pub(super) trait ByDebug {
        fn show(&self, name: &str);
    }
    impl<T: Debug> ByDebug for Value<'_, T> {
        fn show(&self, _: &str) {
            let text = format!("{:?}", self.0);
            if text != "()" {
                println!("{text}");
            }
        }
    }
}
