"""How hard the phantoms are, and whether anything but the anatomy tells the labels: for people who change the drawing.

    npx cleft phantom chexpert --out C --patients 2000 --seed 1 --five-way 60; the same with rsna and embed
    python scripts/phantoms/calibrate.py chexpert C     (numpy, pandas, pillow, pydicom, scikit-learn)

Prints for each label the area under the ROC curve, in five folds by patient, of a simple classifier on pixels (64 x 64, PCA to
120 dimensions, logistic regression; and an RBF SVM of 60 dimensions for classes), and of random forests that see only what must say
nothing: file size, place in the table, columns and headers, and the image's outermost pixels.

What was found when the drawing was set (seed 1; a label that is -1 is left out), and it is not to be changed to make a method
look good. CheXpert, 3,173 training images of 2,000 patients with the labels' own frequencies, each image scaled to mean 0 and
deviation 1, linear / RBF SVM:
    No Finding 0.84 / 0.87             Enlarged Cardiomediastinum 0.87 / 0.87   Cardiomegaly 0.83 / 0.85
    Lung Opacity 0.68 / 0.68           Lung Lesion 0.66 / 0.70                  Edema 0.91 / 0.92
    Consolidation 0.68 / 0.78          Pneumonia 0.62 / 0.66                    Atelectasis 0.72 / 0.82
    Pneumothorax 0.67 / 0.69           Pleural Effusion 0.87 / 0.89             Pleural Other 0.67 / 0.64
    Fracture 0.61 / 0.62               Support Devices 0.67 / 0.64
Five-way accuracy on 5 x 60 single findings, of SVMs trained on the ordinary images: 0.72 (0.74 with standardised scores).
RSNA, 700 patients, linear: 0.81. EMBED, 300 patients, linear / SVM: BI-RADS N 0.81 / 0.86, B 0.56 / 0.60, A 0.69 / 0.66,
P 0.54 / 0.59, S 0.52 / 0.60, M 0.74 / 0.82, K 0.83 / 0.89 (macro 0.77); density 1 to 4: 0.82, 0.63, 0.72, 0.84 (SVM: macro 0.79).
What must say nothing was at chance, but for the border of mammograms and density: glandular tissue reaches the chest wall.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

FIVE = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]


def pixels_of(path):
    if path.suffix == ".dcm":
        import pydicom

        array = pydicom.dcmread(path).pixel_array.astype(np.float32)
        array = 255 * array / (4095 if array.max() > 255 else 255)
    else:
        array = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
    small = np.asarray(Image.fromarray(array).resize((64, 64), Image.BOX)) / 255
    edge = 3
    frame = [array[:edge].mean(0), array[-edge:].mean(0), array[:, :edge].mean(1), array[:, -edge:].mean(1)]
    border = np.concatenate([np.interp(np.linspace(0, 1, 24), np.linspace(0, 1, len(side)), side) for side in frame])
    small = (small - small.mean()) / (small.std() + 1e-6) if path.suffix != ".dcm" else small
    return small.ravel(), np.concatenate([border, [side.std() for side in frame]]), array.shape


def load(root, paths):
    read = [pixels_of(Path(root) / path) for path in paths]
    sizes = np.array([(Path(root) / path).stat().st_size for path in paths])
    return np.stack([r[0] for r in read]), np.stack([r[1] for r in read]), np.array([r[2] for r in read]), sizes


def predict(model, x, y, groups):
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(model, x, y, groups=groups, cv=folds, method="predict_proba")


def simple():
    return make_pipeline(StandardScaler(), PCA(120, random_state=0), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced"))


def forest():
    return RandomForestClassifier(60, min_samples_leaf=8, max_depth=8, class_weight="balanced", n_jobs=2, random_state=0)


def kernel():
    return make_pipeline(StandardScaler(), PCA(60, random_state=0), SVC(C=3, probability=True, random_state=0))


def report(name, y, groups, small, leaks):
    row = [f"{name:28}", f"{int(y.sum()):5} of {len(y)}", f"pixels {roc_auc_score(y, predict(simple(), small, y, groups)[:, 1]):.3f}"]
    row.append(f"svm {roc_auc_score(y, predict(kernel(), small, y, groups)[:, 1]):.3f}")
    for what, features in leaks.items():
        row.append(f"{what} {roc_auc_score(y, predict(forest(), features, y, groups)[:, 1]):.3f}")
    print("  ".join(row), flush=True)


def classes(name, y, groups, small):
    found = predict(kernel(), small, y, groups)
    order = np.unique(y)
    auc = roc_auc_score(y, found, multi_class="ovr")
    print(f"{name}: {len(y)} images, accuracy {accuracy_score(y, order[found.argmax(1)]):.3f}, chance {np.bincount(np.unique(y, return_inverse=True)[1]).max() / len(y):.3f}, macro AUC {auc:.3f}")


def chexpert(root):
    table = pd.read_csv(f"{root}/CheXpert-v1.0-small/train.csv")
    small, border, shape, sizes = load(root, table.Path)
    patient = table.Path.str.extract(r"patient(\d+)")[0].astype(int).values
    header = np.c_[table.Sex == "Male", table.Age, table["AP/PA"] == "AP", shape, sizes]
    ordinary = (patient < 50001).nonzero()[0]
    for finding in table.columns[5:]:
        known = ordinary[table[finding].values[ordinary] != -1]
        y = (table[finding].values[known] == 1).astype(int)
        leaks = {"size": sizes[known, None], "order": known[:, None], "header": header[known], "border": border[known]}
        report(finding, y, patient[known], small[known], leaks)
    single = (patient >= 50001).nonzero()[0]
    if len(single) > 0:
        classes("five-way", table[FIVE].fillna(0).values[single].argmax(1), patient[single], small[single])
        leaks = np.c_[single, header[single], border[single]]
        y = table[FIVE].fillna(0).values[single].argmax(1)
        print("five-way from order, header and border:", round(roc_auc_score(y, predict(forest(), leaks, y, patient[single]), multi_class="ovr"), 3))


def rsna(root):
    import pydicom

    table = pd.read_csv(f"{root}/stage_2_train_labels.csv").drop_duplicates("patientId")
    paths = ["stage_2_train_images/" + p + ".dcm" for p in table.patientId]
    small, border, _, sizes = load(root, paths)
    read = [pydicom.dcmread(f"{root}/{p}", stop_before_pixels=True) for p in paths]
    header = np.array([[float(d.PatientAge), d.PatientSex == "M", d.ViewPosition == "AP", float(d.PixelSpacing[0])] for d in read])
    order = np.arange(len(table))[:, None]
    report("Target", table.Target.values, order[:, 0], small, {"size": sizes[:, None], "order": order, "header": header, "border": border})


def embed(root):
    meta = pd.read_csv(f"{root}/tables/EMBED_OpenData_metadata.csv")
    clinical = pd.read_csv(f"{root}/tables/EMBED_OpenData_clinical.csv")
    table = meta.merge(clinical, left_on=["acc_anon", "ImageLateralityFinal"], right_on=["acc_anon", "side"])
    paths = table.anon_dicom_path.str.replace("/mnt/NAS2/mammo/anon_dicom", "images")
    small, border, shape, sizes = load(root, paths)
    # Sides alike, and only one view: the classifier is simple.
    small = small.reshape(-1, 64, 64)
    right = (table.side == "R").values
    small[right] = small[right, :, ::-1]
    small = small.reshape(len(small), -1)
    groups = table.empi_anon_x.values
    header = np.c_[right, table.ViewPosition == "CC", table.age_at_study, table.StudyDescription.str.len(), shape, sizes]
    leaks = {"size": sizes[:, None], "order": np.arange(len(table))[:, None], "header": header, "border": border}
    for letter in "NBAPSMK":
        report(f"BI-RADS {letter}", (table.asses == letter).astype(int).values, groups, small, leaks)
    for density in (1, 2, 3, 4):
        report(f"density {density}", (table.tissueden == density).astype(int).values, groups, small, leaks)
    classes("BI-RADS", table.asses.values, groups, small)
    classes("density", table.tissueden.values, groups, small)


{"chexpert": chexpert, "rsna": rsna, "embed": embed}[sys.argv[1]](sys.argv[2])
