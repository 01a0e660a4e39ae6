use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Coefficient, Correlate, attention_to, token_losses};

#[test]
fn induction_attention_goes_with_a_low_loss_on_repeated_tokens() {
    let model = Model::load_on("data/models/tiny-world", Device::Cpu, Kind::Float).unwrap();
    let tokens = repeated_tokens(&model, 24, 12, 0).unwrap();
    let run = model.run(&tokens, &Plan::new().cache(Point::Pattern)).unwrap();
    let (heads, losses) =
        (attention_to(&run.cache, Motif::Induction).unwrap(), token_losses(&run).unwrap());
    let how = Correlate::new(Coefficient::Pearson, 1).shuffles(299).resamples(200);
    let found = how.of(&heads, &losses).unwrap();
    // All eight heads of layer 1 are induction heads; none of layer 0 is.
    for (index, r) in found.r.select(Axis::Layer, 1).unwrap().present() {
        let bounds = found.r.interval.as_ref().unwrap();
        assert!(r < -0.25 && bounds.high[[1, index[0]].as_slice()] < -0.1, "L1H{}: {r}", index[0]);
    }
    let significant = found.significant(0.01);
    assert_eq!(significant.select(Axis::Layer, 1).unwrap().present().count(), 8);
    // (One of layer 0 looks there a little when the loss is higher.)
    let below = significant.select(Axis::Layer, 0).unwrap();
    assert!(below.present().all(|(_, r)| r > 0.0), "{below:?}");
    // The control: each prompt with the losses of another.
    let mut order: Vec<i64> = (0..24).collect();
    Rng::new(3).shuffle(&mut order);
    let mixed = losses.select_many(Axis::Batch, &order).unwrap();
    let mixed = mixed.relabel(Axis::Batch, losses.labels(Axis::Batch).unwrap()).unwrap();
    let control = how.of(&heads, &mixed).unwrap();
    assert_eq!(control.significant(0.05).present().count(), 0, "{control:?}");
}
