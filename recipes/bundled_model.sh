#!/usr/bin/env bash
# Train the bundled model anew; pretrained_models/README.md says what came of it.
#
# Before: the data below data/, as docs/data.md says: UTKFace, All-Age-Faces, FairFace (train/, val/ and their label
# files), LFW as recipes/lfw_labels.py says, FIW, MTFL, FGNET, TSKinFace and LAG as recipes/gender_tables.py says; the
# whole history of this repository (no shallow clone); and
#     pip install torch -r requirements-export.txt
#
#     recipes/bundled_model.sh          # all steps
#     recipes/bundled_model.sh train    # or some, in this order: tables start train predict distil boxes refine enlarge
#                                       # lengthen widen bundle
#     OVERRIDES="train.epochs=1 train.steps_per_epoch=2" recipes/bundled_model.sh   # does every step work?
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
read -ra overrides <<< "${OVERRIDES:-}"
aaf=data/aaf_faces/faces.csv more_aaf=data/aaf_faces/repeated.csv women=data/lfw_faces/women_twice.csv
detected=data/fairface_boxes.csv black=data/fairface_black_twice.csv hard=data/fairface_hard_twice.csv
older=data/fairface_older_women.csv older_utkface=data/UTKFace/older_women.csv
before=checkpoints/EfficientNetLite0_160.onnx

tables() {
  "$python" create_db_utkface.py -i data/UTKFace -o meta/utkface.csv
  "$python" crop_faces.py -i data/All-Age-Faces -o data/aaf_faces --labels aaf --main_face --max_side 288 --margin 0.2
  "$python" recipes/lfw_labels.py data/LFW -o data/lfw.csv
  "$python" crop_faces.py -i data/LFW/lfw-deepfunneled -o data/lfw_faces --labels data/lfw.csv --main_face \
    --max_side 288 --margin 0.2
}

# A network that recognizes faces.
start() {
  "$python" recipes/face_network.py -o checkpoints/face_network.hdf5 --size 160 --db fairface
}

settings=(model.model_name=MobileNet model.img_size=160 model.batch_size=64 train.optimizer_name=adamw
  train.weight_decay=0.02 train.schedule=cosine train.lr=0.0006 train.ema=0.998 train.age_target=gaussian
  train.age_expectation_weight=0.2 train.age_loss_weight=0.35 train.age_class_weights=0.35 augment.mixup_alpha=0
  augment.erasing_probability=0.2 augment.colour_cast_probability=0.4 augment.colour_cast=0.3
  augment.gamma_probability=0.4 'augment.gamma=[0.5,2.8]' train.export_onnx=false)

further=(model.frozen=0.2 model.dropout=0.1 train.mixed_precision=true train.warmup_epochs=0.15
  augment.crop_jitter_probability=0.8 augment.crop_jitter_shift=0.08 augment.crop_jitter_scale=0.12)

# The long and the short training of the last parts.
late=("${settings[@]}" "${further[@]}" model.img_size=192 model.mirrored=true
  train.predictions=checkpoints/predictions4.npz)

weaker=("${late[@]}" train.ema=0.999 augment.rotation=12 augment.scale=0.1 augment.erasing_probability=0.15
  augment.colour_cast_probability=0.3 augment.colour_cast=0.25 augment.gamma_probability=0.3 'augment.gamma=[0.5,2.5]'
  augment.blur_probability=0.1 augment.low_resolution_probability=0.12 augment.jpeg_probability=0.15)

weakest=("${late[@]}" train.lr=0.00015 train.warmup_epochs=0.05 train.epochs=1 augment.geometry_probability=0.6
  augment.rotation=8 augment.scale=0.06 augment.erasing_probability=0.05 augment.brightness_contrast_probability=0.3
  augment.colour_cast_probability=0.15 augment.colour_cast=0.2 augment.gamma_probability=0.15 'augment.gamma=[0.5,2.5]'
  augment.grey_probability=0.05 augment.blur_probability=0.05 augment.motion_probability=0.02
  augment.low_resolution_probability=0.08 augment.jpeg_probability=0.1)

# The heads alone, then all but the first layers. All-Age-Faces is small and has ages that the others lack.
train() {
  local db="data.db=[utkface,$aaf,$aaf,$aaf,fairface]"
  run "$db" "${settings[@]}" model.frozen=0.96 model.weights=checkpoints/face_network.hdf5 train.lr=0.003 \
    train.ema=0 train.epochs=1 train.steps_per_epoch=150 train.seed=1 train.checkpoint_dir=checkpoints/heads
  run "$db" "${settings[@]}" model.frozen=0.2 model.dropout=0.2 model.weights="$(newest heads)" \
    train.warmup_epochs=0.1 train.epochs=5 train.seed=11 train.checkpoint_dir=checkpoints/all
}

# What the trained network and the one bundled before it predict together for the images of training.
predict() {
  git show 55de21c:pretrained_models/EfficientNetLite0_160.onnx > $before.part
  mv $before.part $before
  predict_with checkpoints/predictions.npz "$(newest all)" $before
}

predict_with() {
  "$python" recipes/predict_targets.py -o "$1" --db utkface $aaf fairface --flip --weight_file "${@:2}" \
    ${overrides[@]+--limit 100}
}

# Further, on these predictions and the labels.
distil() {
  run "data.db=[utkface,utkface,$aaf,$aaf,$aaf,fairface,fairface]" "${settings[@]}" model.mirrored=true model.frozen=0.3 \
    model.dropout=0.1 model.weights="$(newest all)" train.predictions=checkpoints/predictions.npz \
    train.warmup_epochs=0.15 train.epochs=6 train.steps_per_epoch=850 train.seed=12 \
    train.checkpoint_dir=checkpoints/distilled
}

# FairFace as this project's detector sees it: its boxes are less exact than FairFace's own. Rows of all tables that
# are predicted worst are repeated.
boxes() {
  "$python" recipes/detected_boxes.py -o $detected --db fairface ${overrides[@]+--limit 3000}
  local people="ethnicity == 'Black'"
  "$python" recipes/repeat_rows.py $detected -o $black --where "$people"
  "$python" recipes/repeat_rows.py $detected -o $hard --where "$people" "$people" "age_min in (3, 10)"
  "$python" recipes/repeat_rows.py $aaf -o $more_aaf --where "ages >= 0" "ages >= 0" "10 <= ages < 20"
  "$python" recipes/repeat_rows.py data/lfw_faces/faces.csv -o $women --where "genders == 0"
  local woman="genders == 0"
  "$python" recipes/repeat_rows.py $hard -o $older --where "$woman and age_min >= 50" "$woman and age_min >= 60"
  cp meta/utkface.csv data/UTKFace/utkface.csv  # a table lies beside its images
  "$python" recipes/repeat_rows.py data/UTKFace/utkface.csv -o $older_utkface --where "$woman and ages >= 60"
}

# Again at 176 pixels, on both.
refine() {
  predict_with checkpoints/predictions2.npz "$(newest distilled)" "$(newest all)" $before
  run "data.db=[utkface,utkface,$aaf,$aaf,$aaf,fairface,$black]" "${settings[@]}" "${further[@]}" \
    model.img_size=176 model.mirrored=true model.weights="$(newest distilled)" \
    train.predictions=checkpoints/predictions2.npz train.epochs=7 train.steps_per_epoch=900 train.seed=13 \
    train.checkpoint_dir=checkpoints/refined
}

# With the genders of LFW too, then with larger images, and with a size between: a
# mirror image doubles the time.
enlarge() {
  predict_with checkpoints/predictions3.npz "$(newest refined)" "$(newest distilled)" $before
  local db="data.db=[utkface,utkface,$more_aaf,fairface,$hard,$women]"
  run "$db" "${settings[@]}" "${further[@]}" model.img_size=176 model.weights="$(newest refined)" \
    train.predictions=checkpoints/predictions3.npz train.epochs=4 train.steps_per_epoch=800 train.seed=21 \
    train.checkpoint_dir=checkpoints/more
  run "$db" "${settings[@]}" "${further[@]}" model.img_size=208 model.weights="$(newest more)" train.lr=0.0005 \
    train.predictions=checkpoints/predictions3.npz train.epochs=6 train.steps_per_epoch=950 train.seed=22 \
    train.checkpoint_dir=checkpoints/enlarged
  run "${db/$hard/$black}" "${settings[@]}" "${further[@]}" model.img_size=192 model.mirrored=true \
    model.weights="$(newest enlarged)" train.predictions=checkpoints/predictions3.npz train.lr=0.0002 train.ema=0.995 \
    train.warmup_epochs=0.05 train.epochs=1 train.steps_per_epoch=750 train.seed=23 train.checkpoint_dir=checkpoints/mirrored
}

# Longer, with weaker augmentation and with older women, who are taken for men more often.
lengthen() {
  predict_with checkpoints/predictions4.npz "$(newest enlarged)" "$(newest refined)" "$(newest distilled)" $before
  local db="data.db=[$older_utkface,$older_utkface,$more_aaf,fairface,$older,$women]"
  run "$db" "${weaker[@]}" model.weights="$(newest mirrored)" \
    train.epochs=5 train.steps_per_epoch=2040 train.seed=31 train.checkpoint_dir=checkpoints/longer
  run "$db" "${weakest[@]}" model.weights="$(newest longer)" \
    train.steps_per_epoch=1350 train.seed=33 train.checkpoint_dir=checkpoints/last
}

# With the genders of more people, many of them children, with hats or turned away.
widen() {
  local dataset children=data/fgnet_boxes.csv,data/tskinface_boxes.csv,data/lag.csv
  for dataset in fiw=FIW mtfl=MTFL fgnet=FGNET tskinface=TSKinFace/TSKinFace_source lag=LAG; do
    "$python" recipes/gender_tables.py "${dataset%=*}" "data/${dataset#*=}" -o "data/${dataset%=*}.csv"
  done
  for dataset in mtfl fgnet tskinface; do
    "$python" recipes/detected_boxes.py -o data/${dataset}_boxes.csv --db data/$dataset.csv ${overrides[@]+--limit 100}
  done
  local db="data.db=[$older_utkface,$older_utkface,$more_aaf,fairface,$older,$women,data/fiw.csv"
  db+=",data/mtfl.csv,data/mtfl_boxes.csv,$children,$children]"
  run "$db" "${weaker[@]}" model.weights="$(newest last)" \
    train.epochs=5 train.steps_per_epoch=1750 train.seed=41 train.checkpoint_dir=checkpoints/wider
  run "$db" "${weakest[@]}" model.weights="$(newest wider)" \
    train.steps_per_epoch=1000 train.seed=42 train.checkpoint_dir=checkpoints/final
}

run() {
  "$python" recipes/train_on_cpu.py "$@" ${overrides[@]+"${overrides[@]}"}  # bash 4.3 takes an empty list for unset
}

# The mean with the weights before, which are better at ages.
bundle() {
  local bundled=pretrained_models/MobileNet_192
  "$python" recipes/average_weights.py "$(newest last)" "$(newest final)" --shares 0.4 0.6 -o $bundled.hdf5
  "$python" export.py --format onnx --weight_file $bundled.hdf5 -o $bundled.onnx --int8 utkface $aaf fairface
}

newest() {
  # shellcheck disable=SC2012
  ls -t "checkpoints/$1"/*_weights.*.hdf5 | head -n 1
}

steps=("$@")
[ $# -gt 0 ] || steps=(tables start train predict distil boxes refine enlarge lengthen widen bundle)
for step in "${steps[@]}"; do
  "$step"
done
