//! Exported from notebooks/01_first_look.ipynb by `thalweg-kernel export`.
//!
//! Run it with `cargo run --example first_look`. What the notebook shows is written to the folder `shown`, and as text to the terminal.

#![allow(unused, clippy::print_stdout)] // as in a notebook

use thalweg::prelude::*;

/// The heads that show a pattern more than half of the time.
fn members(scores: &Grid) -> thalweg::anyhow::Result<Vec<(usize, usize)>> {
    top_heads(scores, scores.present().filter(|(_, score)| *score > 0.5).count())
}

fn main() -> anyhow::Result<()> {
    // Relative paths in cells start at the notebook's folder.
    shown::begin(concat!(env!("CARGO_MANIFEST_DIR"), "/notebooks"))?;

    // # A first look at the residual stream
    //
    // A language model keeps one vector per token and adds to it, block after block: the *residual stream*. This notebook opens a
    // small Llama, `tiny-world` (4 layers, 128 dimensions, trained in this repository), and asks three questions of it.
    //
    // 1. What is in the stream, layer by layer?
    // 2. Which heads make the model copy a sequence that it has seen once?
    // 3. Does taking those heads away take the ability away?
    //
    // The words that it needs: a *token* is a word or a piece of one. A *block* (also called layer) adds to each vector twice. First its
    // *attention* brings over what earlier tokens hold; it is the work of several *heads* side by side, and a head's *pattern*, a softmax,
    // says how much each token looks at itself and at every earlier one. Then its *MLP*, a small network, works on each token alone. At the
    // end a norm and the *unembedding* turn the vector into *logits*, one number for each word of the vocabulary, and a softmax turns these
    // into probabilities.
    //
    // Every activation has the name that TransformerLens gives it. Nothing below names a head by number: heads are found by score. The kernel has
    // loaded `thalweg::prelude`, so the first cell needs no `use`.

    // [1]
    let model = Model::load("../data/models/tiny-world")?;
    println!("{}", model.config());

    // ## The model does something
    //
    // **Before you run the next cell:** which word should come next?

    // [2]
    let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
    shown::show!("02_the_model_does_something", model.top(&tokens, 5)?);

    // ## See: record activations
    //
    // A `Plan` says what to record; `run` carries it out and returns the logits and a `Cache`. A name that does not exist is an
    // error before any work is done, never an empty cache.

    // [3]
    let plan =
        Plan::new().cache(Site::Embed).cache(vec![Point::AttnOut, Point::MlpOut, Point::ResidPost]);
    let run = model.run(&tokens, &plan)?;
    println!("{:?}", run.cache);

    // The stream is a sum: the embedding, plus what each attention and each MLP wrote. Add them up by hand.

    // [4]
    let last = model.config().n_layers - 1;
    let mut sum = run.cache.get(Site::Embed)?;
    for layer in 0..=last {
        sum = sum
            + run.cache.get(Point::AttnOut.at(layer))?
            + run.cache.get(Point::MlpOut.at(layer))?;
    }
    let sum_error =
        (&sum - run.cache.get(Point::ResidPost.at(last))?).abs().max().double_value(&[]);
    println!("largest difference between the sum and the stream: {sum_error:.1e}");

    // How long is the stream, and how far does each block turn it? (The first token is left out: it is an *attention sink*, and its
    // vector follows other rules.)

    // [5]
    shown::show!(
        "05_see_record_activations",
        Figure::column(&[
            heatmap(&resid_norms(&run.cache)?)?,
            heatmap(&resid_cosines(&run.cache)?)?
        ])
    );

    // The stream grows, and the first two blocks turn it far more than the later ones: their cosines are the lightest.
    //
    // ## The logit lens
    //
    // Put the final norm and the unembedding on the stream *before* the end: what would the model say if it stopped here? The figure shows
    // the logarithm of the probability of the answer, in *nats* (natural logarithms): 0 is certain, -0.7 one half, -30 as good as never.
    //
    // **Before you run it:** at which layer do you expect the answer?

    // [6]
    shown::show!(
        "06_the_logit_lens",
        heatmap(&logit_lens(&model, &run.cache, model.token("Mary")?)?)?
    );

    // The answer belongs in the last column, after `to`. There the embedding has no idea of it, after `L0` it is one of several words (-1.5,
    // which is 22 %), and from `L1` on it is all but certain. Point at the cells to see their numbers: on so long a scale both look dark.
    //
    // <details><summary>How this misleads</summary>
    //
    // Early layers speak another basis: the lens shows what the unembedding *would read*, not what later layers read. A light cell
    // does not say that the information is absent.
    // </details>
    //
    // ## A behaviour to explain: copying
    //
    // Draw twelve meaningless syllables at random, write them twice. The first copy cannot be predicted; the second can, by looking back.
    // The loss of each token, minus the logarithm of the probability that the model gave it, says whether the model does so. The mean is
    // over 32 such prompts.

    // [7]
    let syllables = model
        .token_ids("ja je ji ba bi bo bu da de di du fa fe fi fo fu ga ge gi gu ka ke ki ko")?;
    let repeated = repeated_tokens_of(&model, &syllables, 32, 12, 0)?;
    let loss = Grid::of(&model.loss(&repeated)?, &[Axis::Batch, Axis::Pos], "nats")?
        .mean_interval(Axis::Batch)?
        .name("loss of the next token; the block of 12 begins again at position 12");
    shown::show!("07_a_behaviour_to_explain_copying", lines(&loss)?);

    // Position 0 is the mark `<s>` where every prompt begins, and each point is the loss of the token *after* it. So at 12 the first syllable of
    // the second copy is asked for, and nothing tells the model yet that a copy begins; from 13 on the loss is near 0.
    //
    // ## Which heads do it?
    //
    // Two patterns of attention, on these prompts: a *previous-token* head looks one token back; an *induction* head looks at the
    // token that followed the same token the first time (Elhage et al. 2021; Olsson et al. 2022).

    // [8]
    let look = model.run(&repeated, &Plan::new().cache(vec![Point::Pattern, Point::Z]))?;
    let previous = head_scores(&look.cache, Motif::PreviousToken)?;
    let induction = head_scores(&look.cache, Motif::Induction)?;
    shown::show!("08_which_heads_do_it", Figure::row(&[heatmap(&previous)?, heatmap(&induction)?]));

    // A few heads of one layer look one token back, and every head of the next is an induction head.
    //
    // The induction head with the highest score, on one prompt. The stripe lies one right of the repeated token.

    // [9]
    let best = top_heads(&induction, 6)?;
    let (layer, head) = best[0];
    let one = model.run(&repeated.row(0)?, &Plan::new().cache(Point::Pattern))?;
    let pattern = attention_pattern(&one.cache, layer)?.select(Axis::Head, head as i64)?;
    let score = induction.at(&[layer as i64, head as i64])?;
    shown::show!(
        "09_which_heads_do_it",
        attention(&pattern)?
            .title(&format!("layer {layer}, head {head}: induction score {score:.2}"))
    );

    // ## Change: take heads away
    //
    // Looking is not proof. Replace the output `z` of the best induction head (what it has gathered from other tokens), then of the best
    // two, and so on, by its mean over these prompts (*mean ablation*) or by zero, and measure the loss on the second copy. The control
    // is as many random heads, drawn without those of either pattern.
    //
    // `loss_at(14..)` takes the tokens from position 14 on: the second copy begins at 13, and its first syllable cannot be guessed.
    //
    // **Before you run it:** how much will the first head alone matter?

    // [10]
    let mean = Intervention::mean(&look.cache);
    let second_copy = Metric::loss_at(14..);
    let others = [members(&induction)?, members(&previous)?].concat(); // a head of either pattern is no control
    let random = random_heads(&model, best.len(), &others, 1)?;
    let cut = ablation_curve(&model, &repeated, &best, &mean, &second_copy)?;
    let control = ablation_curve(&model, &repeated, &random, &mean, &second_copy)?;
    let cut_to_zero =
        ablation_curve(&model, &repeated, &best, &Intervention::zero(), &second_copy)?;
    let control_to_zero =
        ablation_curve(&model, &repeated, &random, &Intervention::zero(), &second_copy)?;
    let curves = Grid::stack(
        Axis::Series,
        &[
            ("induction heads, mean", &cut),
            ("induction heads, zero", &cut_to_zero),
            ("random heads, mean", &control),
            ("random heads, zero", &control_to_zero),
        ],
    )?;
    shown::show!(
        "10_change_take_heads_away",
        lines(&curves)?.title("loss on the second copy after ablating k heads")
    );

    // The axis counts the heads that are taken away. The first alone costs next to nothing, for the others still copy; without six
    // most of the copying is gone. Random heads cost little, however many.
    //
    // <details><summary>How this misleads</summary>
    //
    // Circuits are redundant: a head whose loss hardly matters alone may matter in a set. And zero is a value the model never sees, so
    // zero ablation also measures the damage of an unusual input; that is why the mean stands beside it. (Here
    // it is the mean that hurts more. Which of the two does is not known beforehand.) One draw of random heads is a
    // weak control: change its seed.
    // </details>
    //
    // ## The shape of the stream
    //
    // PCA of the residual stream after the last layer, one point a token, on the same prompts. The share of variance is on the axes.
    // **Before you run it:** will the first copy and the second lie apart? What does the model know in one and not in the other?

    // [11]
    let stream = model.run(&repeated, &Plan::new().cache(Point::ResidPost.at(last)))?.cache;
    let shape = pca(&stream, Point::ResidPost.at(last), 2)?;
    let copies = [["first copy"; 12], ["second copy"; 12]].concat().repeat(repeated.batch());
    shown::show!("11_the_shape_of_the_stream", scatter(&shape.scores)?.color_by(&copies)?);

    // They lie apart along the first axis: in the second copy the model knows which syllable comes next, in the first it does not.
    //
    // ## The finding, asserted
    //
    // The last cell of every notebook states what was found, so that a change to the library or to the model that breaks it is seen.

    // [12]
    let first_copy_loss =
        Metric::loss_at(2..13).of(&look.logits, &repeated)?.mean(Kind::Double).double_value(&[]);
    let before = cut.at(&[0])?;
    let after = cut.at(&[-1])?;
    let after_random = control.at(&[-1])?;
    println!("loss in nats: first copy {first_copy_loss:.2}, second copy {before:.2}");
    println!(
        "second copy without induction heads {after:.2}, without random heads {after_random:.2}"
    );
    assert!(sum_error < 1e-4, "the stream is the sum of what was written");
    assert!(before < 0.3, "the model copies");
    assert!(after - before > 1.0, "the induction heads carry the copying");
    assert!(after - before > 4.0 * (after_random - before), "random heads do not");

    // **Exercises**
    //
    // 1. Take away the previous-token heads instead (`top_heads(&previous, 6)?`). Why does that hurt the copying too? Look at what it does to
    //    the induction scores.
    // 2. If the second sentence says `Mary gave a drink to`, the answer is `John`. At which layer does the lens say so at the last token?
    // 3. Run `model.shuffled(0)?` through the cells above: the same numbers in every weight, in another order. Which scores survive?
    // 4. One draw of random heads is a weak control. Draw five. Does any of them come near the induction heads?
    //
    // **On a real Llama:** `Model::load("path/to/Llama-3.2-1B")?` opens it with the same code; give `logit_lens` the token `" Paris"`, with
    // its leading space.

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
