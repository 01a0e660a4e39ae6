//! Text to tokens, and batches whose padding nobody can feel.

use serde_json::json;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Attention, Axis, Config, Metric, Model, Plan, Point, Position, Rope, RopeScaling, Run, Site,
    Tokens,
};
use tokenizers::Tokenizer;

use crate::support::{config, distance, model, model_of, says, tensors};

const WORDS: [&str; 14] = [
    "<s>", "</s>", "<unk>", "Mary", "and", "John", "went", "to", "the", "store", "<script>", "$",
    "&amp;", "a\"b",
];

/// A word-level tokenizer that puts `<s>` in front, if `front`.
fn tokenizer(front: bool) -> Tokenizer {
    let vocab: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    let processor = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, sequence],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    });
    let json = json!({
        "version": "1.0",
        // Both would change a prompt behind the user's back.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 1, "pad_type_id": 0, "pad_token": "</s>"},
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": if front { processor } else { json!(null) }, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    json.to_string().parse().unwrap()
}

fn with_text(bos: Option<i64>, front: bool) -> Model {
    let c = Config { d_vocab: WORDS.len(), bos, ..config() };
    let parts = tensors(&c, Kind::Double, 1);
    Model::from_parts(c, parts, Some(tokenizer(front))).unwrap()
}

#[test]
fn the_beginning_of_text_is_there_once_however_it_is_written() {
    for bos in [Some(0), None] {
        let model = with_text(bos, true);
        for text in ["Mary went", "<s> Mary went", "<s><s> Mary went"] {
            assert_eq!(model.tokens(text).unwrap().ids(), [[0, 3, 6]], "{text:?}, bos {bos:?}");
        }
        assert_eq!(model.tokens("Mary Mary").unwrap().ids(), [[0, 3, 3]]);
        assert_eq!(model.token_ids("Mary went").unwrap(), [3, 6]);
    }
    let without = with_text(None, false);
    assert_eq!(without.tokens("Mary went").unwrap().ids(), [[3, 6]]);
}

#[test]
fn a_tokenizers_own_truncation_and_padding_do_not_touch_a_prompt() {
    let long = "Mary and John went to the store";
    assert_eq!(with_text(Some(0), true).tokens(long).unwrap().ids(), [[0, 3, 4, 5, 6, 7, 8, 9]]);
    assert_eq!(with_text(Some(0), true).tokens("John").unwrap().ids(), [[0, 5]]);
}

#[test]
fn odd_tokens_stay_text() {
    let model = with_text(Some(0), true);
    let tokens = model.tokens("<script> $ &amp; a\"b </s> nonsense").unwrap();
    let pieces = ["<s>", "<script>", "$", "&amp;", "a\"b", "</s>", "<unk>"];
    assert_eq!(tokens.pieces(), [pieces]);
    assert!(format!("{tokens:?}").contains("<s>|<script>|$|&amp;|a\\\"b|</s>|<unk>"));
    assert_eq!(tokens.find("<script>").unwrap(), Position::PerRow(vec![1]));
    assert_eq!(model.token("$").unwrap(), 11);
    assert!(model.logits(&tokens).is_ok());
}

#[test]
fn one_token_means_one_and_a_word_that_is_not_there_is_an_error() {
    let model = with_text(Some(0), true);
    assert_eq!(model.token("John").unwrap(), 5);
    assert_eq!(model.token("<unk>").unwrap(), 2);
    says(model.token("Mary and"), &["\"Mary and\" is 2 tokens", "expected one", "leading space"]);
    says(model.token("Paris"), &["\"Paris\" is not in the vocabulary"]);
    says(model.token_ids("Mary Paris"), &["\"Mary Paris\" is not in the vocabulary"]);
    let tokens = model.tokens("Mary").unwrap();
    says(model.answer_log_prob(&tokens, "to Paris"), &["not in the vocabulary"]);
    says(model.token(""), &["\"\" is 0 tokens"]);
}

#[test]
fn find_counts_in_own_tokens_and_names_rows_and_places() {
    let model = with_text(Some(0), true);
    let tokens = model.batch(&["Mary and John went", "John and Mary went to the store"]).unwrap();
    assert_eq!(tokens.find("Mary").unwrap(), Position::PerRow(vec![1, 3]));
    assert_eq!(tokens.find(" went ").unwrap(), Position::PerRow(vec![4, 4]));
    says(tokens.find("store"), &["\"store\" is not in row 0", "Mary|and|John"]);
    says(tokens.find("Paris"), &["row 0"]);
    says(tokens.find(" "), &["expected some text"]);
    let broken = vec![vec!["a\nb".to_owned(), "c".into()]];
    let broken = Tokens::from_ids(&[vec![1, 2]]).unwrap().labelled(broken).unwrap();
    says(broken.find("Paris"), &["a\\nb|c"]);
    let twice = model.tokens("Mary and Mary went").unwrap();
    says(twice.find("Mary"), &["positions [1, 3] of row 0", "find_nth"]);
    assert_eq!(twice.find_nth("Mary", 1).unwrap(), Position::PerRow(vec![3]));
    assert_eq!(twice.find_nth("Mary", -1).unwrap(), Position::PerRow(vec![3]));
    says(twice.find_nth("Mary", 2), &["stands 2 times in row 0", "no occurrence 2"]);
    says(twice.find_nth("Mary", -3), &["no occurrence -3"]);
    let pieces = vec![vec![" Ma".to_owned(), "ry".into(), " we".into(), "nt".into()]];
    let split = Tokens::from_ids(&[vec![1, 2, 3, 4]]).unwrap().labelled(pieces).unwrap();
    assert_eq!(split.find("Mary").unwrap(), Position::PerRow(vec![1]));
    assert_eq!(split.find("Mary went").unwrap(), Position::PerRow(vec![3]));
}

#[test]
fn padding_lies_on_the_left_and_positions_count_own_tokens() {
    let tokens = Tokens::from_ids(&[vec![5, 6, 7], vec![8]]).unwrap();
    assert_eq!(tokens.tensor(Device::Cpu), Tensor::from_slice2(&[[5i64, 6, 7], [0, 0, 8]]));
    let mask = Tensor::from_slice2(&[[true, true, true], [false, false, true]]);
    assert_eq!(tokens.mask(Device::Cpu), mask);
    let positions = Tensor::from_slice2(&[[0i64, 1, 2], [-2, -1, 0]]);
    assert_eq!(tokens.positions(Device::Cpu), positions);
    assert_eq!(tokens.places(-1).unwrap(), [[2], [0]]);
    says(tokens.places(1), &["row 1 has 1 tokens: no position 1"]);
    says(tokens.places(-2), &["row 1 has 1 tokens: no position -2"]);
    let roles = tokens.clone().with_role("S", vec![2, 0]).unwrap();
    assert_eq!(roles.places("S").unwrap(), [[2], [0]]);
    assert_eq!(roles.rows(&[1, 0]).unwrap().role("S").unwrap(), [0, 2]);
    says(roles.places("T"), &["no role \"T\"", "the tokens have S"]);
    says(tokens.with_role("S", vec![1]), &["1 places for 2 rows"]);
}

/// The part of a batch's activation that belongs to the tokens of one row.
fn own(x: &Tensor, site: Site, padding: i64) -> Tensor {
    let mut x = x.shallow_clone();
    for (at, axis) in site.axes().iter().enumerate() {
        if matches!(axis, Axis::Pos | Axis::Query | Axis::Key) {
            x = x.narrow(at as i64, padding, x.size()[at] - padding);
        }
    }
    x
}

/// Every row of a padded batch against its prompt alone, at every site.
fn check_rows(model: &Model, attention: Attention, tokens: &Tokens, tolerance: f64) {
    let sites: Vec<Site> = Site::all(model.config().n_layers)
        .into_iter()
        .filter(|site| {
            let held = !matches!(site.point(), Some(Point::Scores | Point::Pattern));
            attention == Attention::Eager || held
        })
        .collect();
    let plan = Plan::new().cache(sites.clone()).attention(attention);
    let together = model.run(tokens, &plan).unwrap();
    for row in 0..tokens.batch() {
        let alone = model.run(&tokens.row(row).unwrap(), &plan).unwrap();
        for &site in &sites {
            let batch = together.cache.get(site).unwrap().narrow(0, row as i64, 1);
            let batch = own(&batch, site, tokens.padding(row) as i64);
            let error = distance(&batch, &alone.cache.get(site).unwrap());
            assert!(error <= tolerance, "{site}, row {row}, {attention:?}: {error:e}");
        }
    }
}

#[test]
fn a_padded_batch_equals_its_rows_run_alone_at_every_site() {
    let scaling = [
        RopeScaling::Default,
        RopeScaling::Linear { factor: 2.0 },
        RopeScaling::Dynamic { factor: 2.0 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 8.0,
        },
    ];
    let rows =
        [vec![3, 1, 4, 1, 5, 9, 2, 6, 5], vec![7], vec![0, 0, 11], vec![2, 7, 1, 8, 2, 8, 1]];
    let tokens = Tokens::from_ids(&rows).unwrap();
    for (i, scaling) in scaling.into_iter().enumerate() {
        let n_kv_heads = [1, 2, 4, 2][i];
        let rope = Rope { theta: 50.0, scaling };
        let c = Config { rope, n_kv_heads, attention_bias: true, mlp_bias: true, ..config() };
        for attention in [Attention::Eager, Attention::Fused] {
            check_rows(&model_of(c.clone(), Kind::Double, 4), attention, &tokens, 1e-10);
            check_rows(&model_of(c.clone(), Kind::Float, 4), attention, &tokens, 1e-5);
        }
    }
}

#[test]
fn fused_and_eager_attention_agree_also_behind_padding() {
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2]]).unwrap();
    for n_kv_heads in [1, 2, 4] {
        let model = model_of(Config { n_kv_heads, ..config() }, Kind::Double, 4);
        let run = |attention| model.run(&tokens, &Plan::new().attention(attention)).unwrap().logits;
        assert!(distance(&run(Attention::Eager), &run(Attention::Fused)) < 1e-12);
    }
}

#[test]
fn a_padded_query_sees_no_key() {
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2]]).unwrap();
    let points = [Point::Scores, Point::Pattern, Point::Z];
    let run = model().run(&tokens, &Plan::new().cache(points)).unwrap();
    let padded =
        |point: Point, axis: i64| run.cache.stack(point).unwrap().select(1, 1).narrow(axis, 0, 3);
    let scores = padded(Point::Scores, 2);
    assert!(bool::try_from(scores.eq(f64::NEG_INFINITY).all()).unwrap());
    assert_eq!(padded(Point::Pattern, 2).abs().max().double_value(&[]), 0.0);
    assert_eq!(padded(Point::Z, 1).abs().max().double_value(&[]), 0.0);
    // Nor does a token see padding, and each row of the pattern adds up to 1.
    assert_eq!(padded(Point::Pattern, 3).abs().max().double_value(&[]), 0.0);
    let pattern = run.cache.get(Point::Pattern.at(1)).unwrap();
    let sums = pattern.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let mask = tokens.mask(Device::Cpu).to_kind(Kind::Double).unsqueeze(1);
    assert!(distance(&sums, &mask.expand_as(&sums)) < 1e-14);
    let fused = Plan::new().cache(Point::Z).attention(Attention::Fused);
    let z = model().run(&tokens, &fused).unwrap().cache.get(Point::Z.at(0)).unwrap();
    assert_eq!(z.get(1).narrow(0, 0, 3).abs().max().double_value(&[]), 0.0);
}

#[test]
fn dynamic_rope_takes_each_rows_own_length_and_the_run_says_so() {
    let rope = Rope { theta: 50.0, scaling: RopeScaling::Dynamic { factor: 4.0 } };
    let model = model_of(Config { rope, n_ctx: 6, ..config() }, Kind::Double, 4);
    let long: Vec<i64> = (0..20).map(|i| i % 23).collect();
    let tokens = Tokens::from_ids(&[long.clone(), long[..9].to_vec(), long[..4].to_vec()]).unwrap();
    check_rows(&model, Attention::Eager, &tokens, 1e-10);
    let notes = |run: Run| run.notes.join("; ");
    let said = notes(model.run(&tokens, &Plan::new()).unwrap());
    assert!(said.contains("dynamic RoPE") && said.contains("longer than 6"), "{said}");
    let short = tokens.row(2).unwrap();
    assert_eq!(notes(model.run(&short, &Plan::new()).unwrap()), "");
    let beyond = Tokens::from_ids(&[vec![1; 25]]).unwrap();
    says(model.run(&beyond, &Plan::new()), &["row 0 has 25 tokens", "context is 24"]);
}

/// Log-probabilities of each row's next token, from the row alone.
fn alone(model: &Model, tokens: &Tokens, row: usize) -> Tensor {
    let logits = model.logits(&tokens.row(row).unwrap()).unwrap();
    logits.get(0).log_softmax(-1, None::<Kind>)
}

#[test]
fn top_rank_loss_and_answers_do_not_feel_padding() {
    let model = with_text(Some(0), true);
    let tokens = model.batch(&["Mary and John went to the", "John"]).unwrap();
    let top = model.top(&tokens, 3).unwrap();
    let ranks = model.rank(&tokens, "store").unwrap();
    let sums = model.answer_log_prob(&tokens, "store and Mary").unwrap();
    let loss = model.loss(&tokens).unwrap();
    let mean = Metric::loss().of(&model.logits(&tokens).unwrap(), &tokens).unwrap();
    assert_eq!(loss.size(), [2, 6]);
    for row in 0..2 {
        let table = alone(&model, &tokens, row);
        let last = table.get(-1);
        let best = &top.rows[row][0];
        assert_eq!(best.id, i64::try_from(last.argmax(-1, false)).unwrap());
        assert_eq!(best.piece, WORDS[best.id as usize]);
        assert!((best.prob - last.double_value(&[best.id]).exp()).abs() < 1e-12);
        assert!(top.rows[row][1].prob >= top.rows[row][2].prob && top.rows[row].len() == 3);
        let own = last.double_value(&[9]);
        let better = (0..14).filter(|id| last.double_value(&[*id]) > own).count();
        assert_eq!((ranks[row].id, ranks[row].rank), (9, better));
        assert!((ranks[row].prob - own.exp()).abs() < 1e-12);
        let ids = &tokens.ids()[row];
        let longer = Tokens::from_ids(&[[ids.as_slice(), &[9, 4, 3]].concat()]).unwrap();
        let longer = self::alone(&model, &longer, 0);
        let at = |i: usize, id: i64| longer.double_value(&[(ids.len() - 1 + i) as i64, id]);
        assert!((sums[row] - at(0, 9) - at(1, 4) - at(2, 3)).abs() < 1e-11);
        let each: Vec<f64> =
            (1..ids.len()).map(|i| -table.double_value(&[i as i64 - 1, ids[i]])).collect();
        for (i, wanted) in each.iter().enumerate() {
            let column = (tokens.padding(row) + i) as i64;
            assert!((loss.double_value(&[row as i64, column]) - wanted).abs() < 1e-11);
        }
        let wanted = each.iter().sum::<f64>() / each.len() as f64;
        assert!((mean.double_value(&[row as i64]) - wanted).abs() < 1e-11);
    }
    let before = loss.get(1).narrow(0, 0, tokens.padding(1) as i64);
    assert_eq!(before.abs().max().double_value(&[]), 0.0);
    let single = Tokens::from_ids(&[vec![3]]).unwrap();
    says(model.loss(&single), &["one token has no next token"]);
    says(model.top(&tokens, 0), &["k of at least 1"]);
}

#[test]
fn metrics_look_at_each_rows_own_place() {
    let model = model();
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]]).unwrap();
    let logits = model.logits(&tokens).unwrap();
    let of = |metric: Metric| Vec::<f64>::try_from(metric.of(&logits, &tokens).unwrap()).unwrap();
    let raw = |row: i64, column: i64, id: i64| logits.double_value(&[row, column, id]);
    let close = |a: &[f64], b: [f64; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    let differences = [raw(0, 4, 7) - raw(0, 4, 2), raw(1, 4, 8) - raw(1, 4, 3)];
    assert!(close(&of(Metric::logit_diff(vec![7, 8], vec![2, 3])), differences));
    let first = [raw(0, 0, 7) - raw(0, 0, 2), raw(1, 2, 7) - raw(1, 2, 2)];
    assert!(close(&of(Metric::logit_diff(7, 2).at(0)), first));
    let probs = logits.softmax(-1, None::<Kind>);
    let p = |row: i64, id: i64| probs.double_value(&[row, 4, id]);
    let sets = [vec![1, 2], vec![3]];
    let wanted = [p(0, 1) + p(0, 2) - p(0, 5), p(1, 3) - p(1, 5)];
    assert!(close(&of(Metric::prob_diff(sets.as_slice(), 5)), wanted));
    let wanted = [(p(0, 1) + p(0, 2)).ln(), p(1, 3).ln()];
    assert!(close(&of(Metric::log_prob(sets.as_slice())), wanted));
    let best = [0, 1].map(|row| i64::try_from(logits.get(row).get(4).argmax(-1, false)).unwrap());
    assert_eq!(of(Metric::accuracy(best.to_vec())), [1.0, 1.0]);
    assert_eq!(of(Metric::accuracy(vec![best[0], (best[1] + 1) % 23])), [1.0, 0.0]);
    assert_eq!(of(Metric::rank(best.to_vec())), [0.0, 0.0]);
    assert!(close(&of(Metric::kl(&logits.select(1, 4))), [0.0, 0.0]));
    assert!(of(Metric::kl(&logits.get(0).get(4)))[1] > 1e-3);
    let custom = Metric::custom("seventh", |x| Ok(x.select(1, 7)));
    assert!(close(&of(custom), [raw(0, 4, 7), raw(1, 4, 7)]));
    let wrong = Metric::custom("all", |x| Ok(x.shallow_clone()));
    says(wrong.of(&logits, &tokens), &["metric \"all\" returned [2, 23]", "[Batch] = [2]"]);
    says(Metric::rank(23).of(&logits, &tokens), &["answer 23 of row 0", "vocabulary of 23"]);
    says(Metric::rank(-1).of(&logits, &tokens), &["answer -1"]);
    says(Metric::loss().of(&logits.get(0), &tokens), &["[Batch, Pos, Vocab] = [2, 5, ..]"]);
    says(Metric::kl(&Tensor::from(1.0)).of(&logits, &tokens), &["kl: the base is []"]);
}
