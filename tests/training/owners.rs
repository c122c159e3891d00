//! Who comes to own what, by every way to choose.

use taskweave::multitask::Budget;
use taskweave::nn::{Initializer, NetSpec};
use taskweave::optim::{Optimizer, OptimizerSpec};
use taskweave::random::{Purpose, Stream};
use taskweave::train::{
    Fit, FitSettings, Importance, Model, OwnerRule, Silent, TaskImages, fit, importances,
    prune_iteratively, select_owners,
};

use super::{CLASSES, Data, FEATURES, model, settings, weights};

#[test]
fn unowned_weights_stay_exactly_zero_while_training() {
    let (first, second) = (Data::new(200, 11), Data::new(200, 12));
    let data = [first.images(), second.images()];
    let importances = [
        Importance::Gradient,
        Importance::Magnitude,
        Importance::Random,
        Importance::Snip,
    ];
    for (importance, budget) in importances
        .into_iter()
        .flat_map(|importance| [Budget::Uniform, Budget::ErdosRenyi].map(|b| (importance, b)))
    {
        let mut model = model(2);
        let rule = OwnerRule {
            importance,
            percentiles: vec![70.0, 80.0],
            budget,
        };
        let owners = select_owners(&mut model, &data, &rule, 0, &Silent).unwrap();
        for (task, owned) in owners.iter().enumerate() {
            model.set_owned(task, owned.clone());
        }
        fit(&mut model, &data, &settings(2), &mut Silent).unwrap();
        for (task, owned) in owners.iter().enumerate() {
            let mut moved = 0;
            for (values, owned) in weights(&model, task).iter().zip(owned) {
                for (value, owned) in values.iter().zip(owned) {
                    assert!(*owned == 1 || value.to_bits() == 0, "{importance:?}");
                    moved += usize::from(*owned == 1 && *value != 0.0);
                }
            }
            assert!(moved > 100, "{importance:?}");
            assert_eq!(
                model.tasks()[task].owned_count(),
                owned.iter().flatten().filter(|o| **o == 1).count()
            );
        }
    }
}

/// The positions of a task, all parameters one after the other.
fn owned(owners: &[Vec<Vec<u8>>], task: usize) -> Vec<u8> {
    owners[task].concat()
}

#[test]
fn a_lot_is_drawn_by_the_seed_and_snip_follows_weight_times_gradient() {
    let (first, second) = (Data::new(200, 11), Data::new(200, 12));
    let data = [first.images(), second.images()];
    let select = |importance, seed| {
        let rule = OwnerRule::new(importance, 80.0);
        select_owners(&mut model(2), &data, &rule, seed, &Silent).unwrap()
    };
    let lots = [0, 0, 1].map(|seed| owned(&select(Importance::Random, seed), 0));
    assert!(lots[0] == lots[1] && lots[0] != lots[2]);
    let mut model = model(2);
    let values = [
        Importance::Gradient,
        Importance::Magnitude,
        Importance::Snip,
    ]
    .map(|importance| importances(&mut model, &data, importance, &Silent).unwrap());
    for task in 0..2 {
        let [gradients, weights, products] = values.each_ref().map(|values| values[task].concat());
        for ((gradient, weight), product) in gradients.iter().zip(&weights).zip(&products) {
            assert_eq!((gradient * weight).to_bits(), product.to_bits());
        }
        assert!(products.iter().any(|product| *product != 0.0));
    }
}

/// The positions that a task of a model owns.
fn owned_by(model: &Model, task: usize) -> Vec<u8> {
    model.tasks()[task].owned().unwrap().concat()
}

/// Whether a task's weights are zero wherever it owns nothing.
fn is_zero_elsewhere(model: &Model, task: usize, owned: &[u8]) -> bool {
    let all = weights(model, task).concat();
    let mut zeros = all.iter().zip(owned).filter(|(_, owned)| **owned == 0);
    zeros.all(|(weight, _)| weight.to_bits() == 0)
}

/// Images that a task classifies rightly.
fn right(model: &mut Model, task: usize, images: &TaskImages<'_>) -> usize {
    let found = model.predict(task, images).unwrap();
    let pairs = found.iter().zip(images.labels());
    pairs
        .filter(|(found, label)| **found == u32::from(**label))
        .count()
}

#[test]
fn iterative_pruning_respects_predecessors_and_goes_as_far_as_the_loss_allows() {
    let (first, second) = (Data::new(400, 11), Data::new(400, 12));
    let data = [first.images(), second.images()];
    let rule = OwnerRule::new(Importance::Iterative, 60.0);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut model = model(2);
        prune_iteratively(&mut model, &data, &rule, &settings(2), &mut Silent).unwrap();
        let [a, b] = [0, 1].map(|task| owned_by(&model, task));
        assert!(
            a.iter().zip(&b).all(|(a, b)| a + b <= 1),
            "a position has two owners"
        );
        for (task, owned) in [&a, &b].into_iter().enumerate() {
            let count = owned.iter().filter(|owned| **owned == 1).count();
            // The share of the percentile, tensor by tensor rounded up, or less.
            assert!(
                count * 10 <= owned.len() * 4 + 100,
                "{count} of {}",
                owned.len()
            );
            assert!(count > 0);
            assert!(is_zero_elsewhere(&model, task, owned));
        }
        // What was learnt is still there.
        for (task, images) in data.iter().enumerate() {
            let right = right(&mut model, task, images);
            assert!(right > 300, "{right} of 400");
        }
        runs.push((a, b, weights(&model, 0).concat()));
    }
    assert!(runs[0] == runs[1], "a seed gives one result");
    let error = select_owners(&mut model(2), &data, &rule, 0, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("chosen while training"),
        "{error}"
    );
}

/// A model whose tasks own what they own before they are sparsified by the rule.
fn before_sparsifying(rule: &OwnerRule) -> Model {
    let mut model = model(2);
    let before = rule.before_sparsifying(2);
    let owners = select_owners(&mut model, &[], &before, 0, &Silent).unwrap();
    for (task, owned) in owners.into_iter().enumerate() {
        model.set_owned(task, owned);
    }
    model
}

#[test]
fn tasks_are_sparsified_epoch_by_epoch_while_they_are_trained() {
    let (first, second) = (Data::new(400, 11), Data::new(400, 12));
    let data = [first.images(), second.images()];
    let rule = OwnerRule {
        percentiles: vec![75.0, 70.0],
        ..OwnerRule::new(Importance::Active, 0.0)
    };
    let settings = FitSettings {
        sparsify: Some(rule.clone()),
        epochs: 20,
        ..settings(2)
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut model = before_sparsifying(&rule);
        let mut run = Fit::new(&model, &data, &settings).unwrap();
        let mut counts = Vec::new();
        while !run.is_done() {
            run.epoch(&mut model, &mut Silent).unwrap();
            counts.push([0, 1].map(|task| model.tasks()[task].owned_count()));
        }
        assert!(
            counts.is_sorted_by(|a, b| a[0] >= b[0] && a[1] >= b[1]),
            "{counts:?}"
        );
        assert!(counts[0][0] * 3 > 4 * counts[4][0], "{counts:?}");
        assert!(
            counts[4..].iter().all(|count| *count == counts[4]),
            "{counts:?}"
        );
        let outcome = run.finish(&mut model);
        assert!(outcome.restored_epoch >= 5, "{}", outcome.restored_epoch);

        let [a, b] = [0, 1].map(|task| owned_by(&model, task));
        assert!(a.iter().zip(&b).all(|(a, b)| a + b <= 1));
        for (task, (owned, share)) in [(&a, 0.25), (&b, 0.3)].into_iter().enumerate() {
            let count = owned.iter().filter(|owned| **owned == 1).count();
            let wanted = share * owned.len() as f64;
            assert!(
                (count as f64 - wanted).abs() < 10.0,
                "{count}, not {wanted}"
            );
            assert!(is_zero_elsewhere(&model, task, owned));
            let right = right(&mut model, task, &data[task]);
            assert!(right > 300, "{right} of 400");
        }
        runs.push((a, b, weights(&model, 0).concat()));
    }
    assert!(runs[0] == runs[1], "a seed gives one result");
}

#[test]
fn what_an_optimiser_keeps_outlives_pruning() {
    let first = Data::new(200, 11);
    let batch: Vec<usize> = (0..32).collect();
    let all: Vec<Vec<u8>> = weights(&model(1), 0)
        .iter()
        .map(|v| vec![1; v.len()])
        .collect();
    let thin: Vec<Vec<u8>> = all
        .iter()
        .map(|owned| (0..owned.len()).map(|at| u8::from(at % 9 == 0)).collect())
        .collect();
    let step = |model: &mut Model, optimizer: &mut Optimizer| {
        optimizer.begin_step();
        model.set_batch(0, &first.images(), &batch);
        model.forward(&[0]).unwrap();
        model.learn(0, 1.0, optimizer).unwrap();
    };
    // Narrowed to what it owns already, a task goes on as if nothing had been; dense kernels hold the
    // one, sparse kernels the other.
    for owned in [&all, &thin] {
        let results = [false, true].map(|narrows| {
            let mut model = model(1);
            model.set_owned(0, owned.clone());
            let mut optimizer = model.optimizer(OptimizerSpec::adam());
            step(&mut model, &mut optimizer);
            if narrows {
                model.narrow_owned(0, owned.clone(), &mut optimizer);
            }
            step(&mut model, &mut optimizer);
            weights(&model, 0).concat()
        });
        assert!(results[0] == results[1]);
    }
    // From dense to sparse kernels, the moments of what is left are those from before.
    let mut model = model(1);
    let mut optimizer = model.optimizer(OptimizerSpec::adam());
    step(&mut model, &mut optimizer);
    let before: Vec<Vec<f32>> = (0..thin.len())
        .map(|slot| optimizer.state(slot)[1].to_vec())
        .collect();
    model.narrow_owned(0, thin.clone(), &mut optimizer);
    for (slot, before) in before.into_iter().enumerate() {
        let masked: Vec<f32> = before
            .iter()
            .zip(&thin[slot])
            .map(|(value, owned)| value * f32::from(*owned))
            .collect();
        let expected = model.to_stored(0, slot, masked).unwrap();
        assert_eq!(optimizer.state(slot)[1], expected, "parameter {slot}");
    }
}

#[test]
fn percentiles_are_one_for_all_or_one_for_each() {
    let rule = OwnerRule {
        percentiles: vec![10.0, 20.0, 30.0],
        ..OwnerRule::new(Importance::Random, 0.0)
    };
    let error = select_owners(&mut model(2), &[], &rule, 0, &Silent).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("one percentile for all or one for each"),
        "{message}"
    );
    let rule = OwnerRule {
        percentiles: vec![90.0, 70.0],
        ..rule
    };
    let owners = select_owners(&mut model(2), &[], &rule, 0, &Silent).unwrap();
    let [few, more] = [0, 1].map(|task| owned(&owners, task).iter().filter(|o| **o == 1).count());
    assert!(few * 2 < more, "{few} {more}");
}

#[test]
fn selection_by_gradient_does_not_depend_on_the_batch() {
    let (first, second) = (Data::new(200, 13), Data::new(200, 14));
    let data = [first.images(), second.images()];
    let net = NetSpec::mlp(FEATURES, &[20, 20], CLASSES);
    let owners = [16, 32, 200].map(|batch| {
        let mut model = Model::new(batch, 255.0);
        for task in 0..2 {
            let mut stream = Stream::new(task, Purpose::DedicatedWeights, 0, 0);
            let weights = net.parameters();
            let weights = weights
                .iter()
                .map(|spec| Initializer::HeNormal.draw(spec, &mut stream));
            model
                .add_task("task", net.clone(), weights.collect())
                .unwrap();
        }
        let rule = OwnerRule::new(Importance::Gradient, 80.0);
        select_owners(&mut model, &data, &rule, 0, &Silent).unwrap()
    });
    assert_eq!(owners[0], owners[1]);
    assert_eq!(owners[0], owners[2]);
}
