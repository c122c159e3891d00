//! Who comes to own what, by every way to choose.

use taskweave::multitask::Budget;
use taskweave::nn::{Initializer, NetSpec};
use taskweave::random::{Purpose, Stream};
use taskweave::train::{
    Importance, Model, OwnerRule, Silent, fit, importances, prune_iteratively, select_owners,
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

#[test]
fn iterative_pruning_respects_predecessors_and_goes_as_far_as_the_loss_allows() {
    let (first, second) = (Data::new(400, 11), Data::new(400, 12));
    let data = [first.images(), second.images()];
    let rule = OwnerRule::new(Importance::Iterative, 60.0);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut model = model(2);
        prune_iteratively(&mut model, &data, &rule, &settings(2), &mut Silent).unwrap();
        let owners: Vec<Vec<Vec<u8>>> = model
            .tasks()
            .iter()
            .map(|net| net.owned().unwrap().to_vec())
            .collect();
        let [a, b] = [0, 1].map(|task| owned(&owners, task));
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
            let all = weights(&model, task).concat();
            let zeros = all.iter().zip(owned).filter(|(_, owned)| **owned == 0);
            assert!(zeros.into_iter().all(|(weight, _)| weight.to_bits() == 0));
        }
        // What was learnt is still there.
        for (task, images) in data.iter().enumerate() {
            let found = model.predict(task, images).unwrap();
            let pairs = found.iter().zip(images.labels());
            let right = pairs
                .filter(|(found, label)| **found == u32::from(**label))
                .count();
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
