import json

import pytest

from brgsa_training.summarize.agreement import agree, table_of
from brgsa_training.summarize.findings import decide
from brgsa_training.summarize.labels import VALUES
from brgsa_training.summarize.scope import Status

# (sentence, abnormality, 1 if it is said to be present); written for these tests in the manner of translated reports.
CASES = [
    ("Calcified plaques are seen in the thoracic and abdominal aorta.", "Arterial wall calcification", 1),
    (
        "Calcific atheroma plaques are observed in the ascending, descending and abdominal aorta.",
        "Arterial wall calcification",
        1,
    ),
    (
        "Fusiform dilatation of the ascending aorta, calcific plaques in the coronary arteries.",
        "Arterial wall calcification",
        0,
    ),
    (
        "Fusiform dilatation of the ascending aorta, calcific plaques in the coronary arteries.",
        "Coronary artery wall calcification",
        1,
    ),
    ("Calcifications are observed in the aortic valve.", "Arterial wall calcification", 0),
    ("Coronary artery calcifications are present.", "Coronary artery wall calcification", 1),
    ("Stents are observed in the coronary arteries.", "Coronary artery wall calcification", 0),
    ("Stents are observed in the coronary arteries.", "Medical material", 1),
    ("CTR increased slightly in favor of the heart.", "Cardiomegaly", 1),
    ("CTR is within normal limits.", "Cardiomegaly", 0),
    ("Cardiothoracic ratio has increased.", "Cardiomegaly", 1),
    ("The heart is slightly larger than normal.", "Cardiomegaly", 1),
    ("Heart size is within normal limits, pulmonary artery diameter increased.", "Cardiomegaly", 0),
    ("Heart dimensions are at the upper limit.", "Cardiomegaly", 0),
    ("Heart size and contour are normal. The diameter of the aorta increased.", "Cardiomegaly", 0),
    ("Mild enlargement of the heart is noted.", "Cardiomegaly", 1),
    ("No pericardial thickening is seen, and bilateral pleural effusion is observed.", "Pericardial effusion", 0),
    ("Pericardial thickening and bilateral pleural effusion are observed.", "Pericardial effusion", 0),
    ("Pericardial thickening and bilateral pleural effusion are observed.", "Pleural effusion", 1),
    ("There is fluid in the pericardial recesses.", "Pericardial effusion", 1),
    ("Minimal pericardial and bilateral pleural effusion is present.", "Pericardial effusion", 1),
    ("Minimal pericardial and bilateral pleural effusion is present.", "Pleural effusion", 1),
    ("Pleural, pericardial effusion was not observed.", "Pericardial effusion", 0),
    ("Part of the stomach is herniated into the thorax.", "Hiatal hernia", 1),
    ("Bochdalek hernia is observed on the left.", "Hiatal hernia", 0),
    ("A few lymph nodes with fatty hilum are seen in both axillae.", "Lymphadenopathy", 0),
    ("A few lymph nodes with fatty hilum are seen in the mediastinum.", "Lymphadenopathy", 1),
    ("No lymph nodes larger than 1 cm were observed in the mediastinum.", "Lymphadenopathy", 0),
    ("Subcutaneous emphysema is observed in the right chest wall.", "Emphysema", 0),
    ("A bulla measuring 3 cm is observed in the right apex.", "Emphysema", 1),
    ("Fibroatelectatic changes are seen in the lingula.", "Atelectasis", 0),
    ("Fibroatelectatic changes are seen in the lingula.", "Pulmonary fibrotic sequela", 1),
    ("Segmental collapse of the lower lobe is present.", "Atelectasis", 1),
    ("Height loss and collapse are seen in the T8 vertebra.", "Atelectasis", 0),
    ("A nodule is seen in the left thyroid lobe.", "Lung nodule", 0),
    ("There is a 4 mm nodule in the right upper lobe.", "Lung nodule", 1),
    ("A 6 mm nodule adjacent to the diaphragm is seen in the lower lobe of the right lung.", "Lung nodule", 1),
    ("Nodular thickening is seen in the left adrenal gland.", "Lung nodule", 0),
    ("Schmorl nodules are observed in the vertebral end plates.", "Lung nodule", 0),
    ("No mass, nodule or infiltration was detected in both lungs.", "Lung nodule", 0),
    ("Ground-glass-like density increases are observed in both lungs.", "Lung opacity", 1),
    ("Frosted glass densities in the right lung have completely regressed.", "Lung opacity", 0),
    ("Linear density increases consistent with sequelae are observed.", "Lung opacity", 0),
    ("Pleuroparenchymal fibrotic bands are seen at both apices.", "Pulmonary fibrotic sequela", 1),
    ("Sequela calcifications are observed in the spleen.", "Pulmonary fibrotic sequela", 0),
    ("Free fluid reaching 2 cm is observed between the leaves of the right pleura.", "Pleural effusion", 1),
    ("Effusion in both hemithoraces is increased.", "Pleural effusion", 1),
    ("There is no effusion in either hemithorax.", "Pleural effusion", 0),
    ("Minimal free fluid is seen in the abdomen.", "Pleural effusion", 0),
    ("Mosaic perfusion is seen.", "Mosaic attenuation pattern", 1),
    ("Thickening of the peribronchovascular interstitium is seen.", "Peribronchial thickening", 1),
    ("Bronchial wall thickening is observed.", "Peribronchial thickening", 0),
    ("Bronchial wall thickening is observed.", "Bronchial thickening", 1),
    ("Consolidated areas with air bronchograms are present.", "Consolidation", 1),
    ("No consolidation or ground glass density was detected.", "Consolidation", 0),
    (
        "The consolidation described in the previous examination was not observed in the current examination.",
        "Consolidation",
        0,
    ),
    ("Dilated bronchi are observed in the middle lobe.", "Bronchiectasis", 1),
    ("Bronchial structures are dilated.", "Bronchiectasis", 1),
    ("Interlobular septa are thickened.", "Interlobular septal thickening", 1),
    ("Smooth septal thickenings are seen in the lower lobes.", "Interlobular septal thickening", 1),
    ("Interventricular septum is thick.", "Interlobular septal thickening", 0),
    ("A port chamber is seen on the right.", "Medical material", 1),
    ("Thoracic tube is seen in the left hemithorax.", "Medical material", 1),
    ("Contrast material was not given.", "Medical material", 0),
    ("Surgical suture materials are seen in the right lung.", "Medical material", 1),
    ("Metallic fixation material is observed in the clavicle.", "Medical material", 1),
    ("Pneumothorax was not detected.", "Pneumothorax", 0),
    ("Free air compatible with pneumothorax is seen on the left.", "Pneumothorax", 1),
    ("Chronic fractures are observed in the right ribs.", "Rib fracture", 1),
    ("No fracture was detected in the ribs.", "Rib fracture", 0),
    ("Calcified plaques are seen in both pleurae.", "Pleural calcification", 1),
    ("There is a mass in the left hilum.", "Lung mass", 1),
    ("Pneumonia cannot be excluded.", "Pneumonia", 0),
    ("Both lungs are clear, without consolidation, nodule or effusion.", "Pleural effusion", 0),
    ("Both lungs are clear, without consolidation, nodule or effusion.", "Consolidation", 0),
    ("The lungs show neither consolidation nor ground glass.", "Lung opacity", 0),
    ("There is no evidence of bronchiectasis.", "Bronchiectasis", 0),
    ("No suspicious nodule; mild emphysema.", "Emphysema", 1),
    (
        "No pathologically enlarged lymph node was seen, but a 7 mm lymph node is observed in the subcarinal area.",
        "Lymphadenopathy",
        1,
    ),
    (
        "Bilateral pleural effusion, more prominent on the right, and adjacent compressive atelectasis were observed.",
        "Atelectasis",
        1,
    ),
    ("Unlike the previous examination, no pleural effusion was seen.", "Pleural effusion", 0),
    (
        "Pleural effusion was observed in the previous examination but it has disappeared in the current examination.",
        "Pleural effusion",
        0,
    ),
    (
        "Pleural effusion, which was not observed in the previous examination, is present on the right.",
        "Pleural effusion",
        1,
    ),
    (
        "Calcific plaques are seen in aortic arch and coronary vascular structures.",
        "Coronary artery wall calcification",
        1,
    ),
    ("Calcific plaques are seen in aortic arch and coronary vascular structures.", "Arterial wall calcification", 1),
    ("Coronary vascular calcification is observed.", "Coronary artery wall calcification", 1),
    ("Calcified plaques in LAD and aorta.", "Arterial wall calcification", 1),
    ("There are calcifications on the walls of the aorta.", "Arterial wall calcification", 1),
    ("Mediastinal vascular structures are calcified and atheromatous.", "Arterial wall calcification", 1),
    ("Aortic arch and its branches have calcific atheroma plaques.", "Arterial wall calcification", 1),
    ("Aortic wall calcifications and cardiomegaly.", "Arterial wall calcification", 1),
    ("Atherosclerotic changes in vascular structures.", "Arterial wall calcification", 1),
    ("Calcification is observed in the mitral valve and aortic valve.", "Arterial wall calcification", 0),
    ("Calcified lymph nodes are seen in the aortopulmonary window.", "Arterial wall calcification", 0),
    ("Calcific atheroma plaques are observed in the abdominal aorta.", "Arterial wall calcification", 0),
    (
        "Calcific atheroma plaques are observed in the aorta and its major branches, coronary arteries.",
        "Coronary artery wall calcification",
        1,
    ),
    ("The aorta is atherosclerotic.", "Arterial wall calcification", 1),
    ("Heart is bigger than normal.", "Cardiomegaly", 1),
    ("Heart dimensions are increased.", "Cardiomegaly", 1),
    ("There is an increase in heart size.", "Cardiomegaly", 1),
    ("There is an increase in the cardiothoracic index in favor of the heart.", "Cardiomegaly", 1),
    ("The transverse diameter of the heart has increased.", "Cardiomegaly", 1),
    ("Heart size slightly above normal.", "Cardiomegaly", 1),
    ("Heart sizes were evaluated as increased.", "Cardiomegaly", 1),
    ("Cardiac size has increased slightly.", "Cardiomegaly", 1),
    ("CTO is slightly increased.", "Cardiomegaly", 1),
    ("Left ventricle dilated. Heart size is normal.", "Cardiomegaly", 0),
    ("The heart is in normal size.", "Cardiomegaly", 0),
    ("Cardiomegaly was not detected.", "Cardiomegaly", 0),
    ("All heart cavities are larger than normal.", "Cardiomegaly", 1),
    ("Minimal fluid is observed in the pericardium.", "Pericardial effusion", 1),
    ("Effusion reaching 8 mm is seen around the heart, pericardial.", "Pericardial effusion", 1),
    ("A 7 mm effusion was observed in the pericardial area.", "Pericardial effusion", 1),
    ("Pericardial and pleural effusion were not observed.", "Pleural effusion", 0),
    ("Pericardial effusion or thickening was not detected.", "Pericardial effusion", 0),
    ("Bilateral pleural and pericardial effusion is observed.", "Pericardial effusion", 1),
    ("Hiatal hernia.", "Hiatal hernia", 1),
    ("Hernia was observed at the level of the esophageal hiatus.", "Hiatal hernia", 1),
    ("Gastric fundus is herniated through the hiatus.", "Hiatal hernia", 1),
    ("Small sliding hernia is present.", "Hiatal hernia", 1),
    ("Diaphragmatic hernia containing fat is seen on the right (Bochdalek).", "Hiatal hernia", 0),
    ("Millimetric LAPs are observed in the mediastinum.", "Lymphadenopathy", 1),
    ("No LAP was detected.", "Lymphadenopathy", 0),
    ("Reactive lymph nodes are seen in both axillae.", "Lymphadenopathy", 1),
    ("Lymph nodes with a short diameter of less than 1 cm are seen.", "Lymphadenopathy", 1),
    ("Mediastinal lymph nodes are stable.", "Lymphadenopathy", 1),
    ("Lymph nodes in pathological size were not observed in the mediastinum.", "Lymphadenopathy", 0),
    ("Centrilobular emphysema areas are seen.", "Emphysema", 1),
    ("Air trapping areas are seen.", "Emphysema", 0),
    ("Both lungs have an emphysematous appearance.", "Emphysema", 1),
    ("Bulla formations are seen in the apex.", "Emphysema", 1),
    ("Subcutaneous emphysema and pneumomediastinum are observed.", "Emphysema", 0),
    ("Plate-like atelectasis in the lower lobe.", "Atelectasis", 1),
    ("Dependent atelectasis is seen.", "Atelectasis", 1),
    ("Subsegmental atelectatic changes are seen in the lingula.", "Atelectasis", 1),
    ("Volume loss and atelectasis are not observed.", "Atelectasis", 0),
    ("Atelectatic band formations are seen.", "Atelectasis", 1),
    ("No nodule or mass was observed, linear atelectasis is seen.", "Atelectasis", 1),
    ("A few nodules are observed in both lungs, the largest measuring 5 mm.", "Lung nodule", 1),
    ("The largest nodule measures 6 mm.", "Lung nodule", 1),
    ("Pulmonary nodule is seen in the right lower lobe.", "Lung nodule", 1),
    ("Hypodense nodules are seen in both thyroid lobes.", "Lung nodule", 0),
    ("Nodule in the left breast.", "Lung nodule", 0),
    ("No nodules were seen in the lung, but a nodule was observed in the thyroid.", "Lung nodule", 0),
    ("A 5 mm nodule is seen in the left adrenal gland.", "Lung nodule", 0),
    ("Multiple millimetric nodules, some of which are calcified.", "Lung nodule", 1),
    ("Calcified nodule is seen in the right lung.", "Lung nodule", 1),
    ("A fissural nodule of 3 mm is seen.", "Lung nodule", 1),
    ("Density increases in the form of ground glass are seen.", "Lung opacity", 1),
    ("Ground glass consolidation areas are seen.", "Lung opacity", 1),
    ("Ground glass consolidation areas are seen.", "Consolidation", 1),
    ("Patchy opacities are seen in both lungs.", "Lung opacity", 1),
    ("Infiltration areas are seen.", "Lung opacity", 0),
    ("Ground glass areas were not detected.", "Lung opacity", 0),
    ("No ground glass opacity, consolidation or nodule was found in the lungs.", "Lung opacity", 0),
    ("Band-like fibrotic densities are seen.", "Pulmonary fibrotic sequela", 1),
    ("Sequelae fibrotic changes in both lung apices.", "Pulmonary fibrotic sequela", 1),
    ("Apical pleuroparenchymal thickening and sequela changes.", "Pulmonary fibrotic sequela", 1),
    ("Fibrotic bands are seen in the middle lobe.", "Pulmonary fibrotic sequela", 1),
    ("Sequela fracture in the 5th rib.", "Pulmonary fibrotic sequela", 0),
    ("Sequelae calcifications in the liver.", "Pulmonary fibrotic sequela", 0),
    ("Minimal effusion is seen in the right pleural space.", "Pleural effusion", 1),
    ("Bilateral effusion is observed, reaching 3 cm on the right.", "Pleural effusion", 1),
    ("Pleural effusion has regressed compared to the previous examination.", "Pleural effusion", 1),
    (
        "Pleural effusion seen on the left in the previous examination has completely disappeared.",
        "Pleural effusion",
        0,
    ),
    ("Loculated fluid is seen in the left hemithorax.", "Pleural effusion", 1),
    ("Free fluid is seen in the perihepatic area.", "Pleural effusion", 0),
    ("Pleural effusion-thickening was not observed in both hemithoraces.", "Pleural effusion", 0),
    ("Peribronchial wall thickness increases are seen.", "Peribronchial thickening", 1),
    ("There are peribronchovascular thickness increases.", "Peribronchial thickening", 1),
    ("Peribronchial cuffing is present.", "Peribronchial thickening", 1),
    ("Diffuse thickening of the bronchial walls.", "Peribronchial thickening", 0),
    ("Peribronchial lymph nodes and pleural thickening are seen.", "Peribronchial thickening", 0),
    ("Consolidation area with air bronchogram in the left lower lobe.", "Consolidation", 1),
    ("Consolidative density in the right lung.", "Consolidation", 1),
    ("No significant consolidation or infiltration was detected.", "Consolidation", 0),
    ("Pneumonic consolidation has completely regressed.", "Consolidation", 0),
    (
        "The areas of consolidation observed in the previous examination are not observed in the current examination.",
        "Consolidation",
        0,
    ),
    ("Bronchiectasis was not observed.", "Bronchiectasis", 0),
    ("Bronchiectatic changes are observed in the lower lobes.", "Bronchiectasis", 1),
    ("Mild bronchial dilatation in the central parts.", "Bronchiectasis", 1),
    ("Ectatic bronchi are seen in the lingula.", "Bronchiectasis", 1),
    ("Bronchi are ectatic in the middle lobe.", "Bronchiectasis", 1),
    ("Traction bronchiectasis accompanies.", "Bronchiectasis", 1),
    ("Thickenings in the interlobular septa are seen.", "Interlobular septal thickening", 1),
    ("Interlobular septal thickness increase is observed.", "Interlobular septal thickening", 1),
    ("No interlobular septal thickening was observed.", "Interlobular septal thickening", 0),
    ("There is a catheter extending to the right atrium.", "Medical material", 1),
    ("Pacemaker leads are seen.", "Medical material", 1),
    ("Metallic clips are seen in the operation area.", "Medical material", 1),
    ("Breast prosthesis is observed bilaterally.", "Medical material", 1),
    ("Sternotomy sutures are present.", "Medical material", 1),
    ("Nasogastric tube is observed.", "Medical material", 1),
    ("Postoperative changes are seen in the sternum.", "Medical material", 0),
    ("Stabilization material is observed in the vertebrae.", "Medical material", 1),
    ("Transpedicular screws are observed.", "Medical material", 1),
    ("Bilateral nephrostomy catheters are observed.", "Medical material", 1),
    ("A valve prosthesis is observed in the mitral position.", "Medical material", 1),
    ("Coronary stent is observed.", "Medical material", 1),
    ("Chest tube is seen in the right hemithorax.", "Medical material", 1),
    ("Mosaic attenuation differences are seen.", "Mosaic attenuation pattern", 1),
    ("Port catheter is not observed.", "Medical material", 0),
    ("Due to lack of contrast, millimetric lymph nodes in the mediastinum were observed.", "Lymphadenopathy", 1),
    ("Pleural effusion was not followed.", "Pleural effusion", 0),
    ("There is not any pleural effusion.", "Pleural effusion", 0),
    ("Pericardial effusion is not present, pleural effusion is present.", "Pleural effusion", 1),
    ("Pericardial effusion is not present, pleural effusion is present.", "Pericardial effusion", 0),
    ("While no pleural effusion was observed on the left, it was observed on the right.", "Cardiomegaly", 0),
    ("Although no consolidation is seen, ground glass areas are present.", "Lung opacity", 1),
    ("Although no consolidation is seen, ground glass areas are present.", "Consolidation", 0),
    ("Nodules with no significant difference in size are seen.", "Lung nodule", 1),
    ("Nodules in both lungs show no change.", "Lung nodule", 1),
    ("No change was observed in the nodules in the right lung.", "Lung nodule", 1),
    ("No new nodule was detected, the known nodules are stable.", "Lung nodule", 1),
    ("Consolidation has decreased but persists.", "Consolidation", 1),
    ("Consolidations are seen, which were not present in the previous examination.", "Consolidation", 1),
    ("The previously observed pleural effusion is not observed in this examination.", "Pleural effusion", 0),
    (
        "Effusion was not detected in the pericardial space; there is minimal effusion in the left pleural space.",
        "Pleural effusion",
        1,
    ),
    (
        "Effusion was not detected in the pericardial space; there is minimal effusion in the left pleural space.",
        "Pericardial effusion",
        0,
    ),
    ("Neither pleural effusion nor pneumothorax was seen.", "Pneumothorax", 0),
    ("No lymph node with pathological size and appearance, but millimetric lymph nodes.", "Lymphadenopathy", 1),
    ("There is no lymph node in the mediastinum, heart size is increased.", "Cardiomegaly", 1),
    ("Mosaic attenuation, emphysema and bronchiectasis are not observed.", "Emphysema", 0),
    ("Emphysema is present; bronchiectasis, mosaic attenuation are not observed.", "Bronchiectasis", 0),
    ("Emphysema is present; bronchiectasis, mosaic attenuation are not observed.", "Emphysema", 1),
    ("Bilateral minimal pleural effusion and no pericardial effusion.", "Pleural effusion", 1),
    ("Bilateral minimal pleural effusion and no pericardial effusion.", "Pericardial effusion", 0),
    ("Pleural effusion on the right; none on the left.", "Pleural effusion", 1),
    ("Minimal pleural effusion, which cannot be seen in the previous examination, is observed.", "Pleural effusion", 1),
    ("No obvious pathology was detected, except for emphysema.", "Emphysema", 1),
    ("Emphysema was excluded.", "Emphysema", 0),
    ("The nodule seen earlier has disappeared.", "Lung nodule", 0),
    ("Consolidation/atelectasis: none.", "Consolidation", 0),
    ("Nodule - right: none, left: none.", "Lung nodule", 0),
    ("Normal bronchial wall thickness.", "Bronchial thickening", 0),
    ("Pleural effusion was present last week but has resolved.", "Pleural effusion", 0),
    ("Pleural effusion has decreased but persists.", "Pleural effusion", 1),
    ("Interval catheter removal.", "Medical material", 0),
    ("The esophagus is not herniated.", "Hiatal hernia", 0),
    ("Emphysema is unlikely.", "Emphysema", 0),
    ("Pneumonia is considered less likely.", "Pneumonia", 0),
    ("Low probability of pneumonia.", "Pneumonia", 0),
    ("Free of pleural effusion.", "Pleural effusion", 0),
    ("Pneumothorax excluded.", "Pneumothorax", 0),
    ("Pneumothorax is doubtful.", "Pneumothorax", 0),
    ("A hiatal hernia was not distinguished.", "Hiatal hernia", 0),
    ("Effusion is observed under the capsule of the spleen.", "Pleural effusion", 0),
    ("Peritoneal implants are observed.", "Medical material", 0),
    ("Lymph nodes are observed in the sigmoid meso.", "Lymphadenopathy", 0),
    ("An intrapulmonary lymph node is observed in the right lung.", "Lymphadenopathy", 0),
    ("A mass is observed in the right shoulder.", "Lung mass", 0),
    ("A nodule is observed in the upper outer quadrant of the left breast.", "Lung nodule", 0),
    ("There are nodules in both lungs, and a nodule in the left thyroid lobe.", "Lung nodule", 1),
    ("No emphysematous changes are seen.", "Emphysema", 0),
    ("Disappearance of the pleural effusion.", "Pleural effusion", 0),
    ("There is little evidence of pneumonia.", "Pneumonia", 0),
    ("Consolidation is not excluded but atelectasis is considered first.", "Atelectasis", 1),
    (
        "In the case with a history of breast cancer, sequela changes in the right lung.",
        "Pulmonary fibrotic sequela",
        1,
    ),
    ("Clinical history: emphysema, smoker.", "Emphysema", 0),
    ("In the patient followed up with lymphoma, lymph nodes are observed in the mediastinum.", "Lymphadenopathy", 1),
    ("A nodule not previously described is seen in the right lung.", "Lung nodule", 1),
    ("No consolidation on the left, consolidation in the right lower lobe.", "Consolidation", 1),
    ("No consolidation on the left, no nodule on the right.", "Lung nodule", 0),
    ("Consolidation in the left lung, not seen on the right.", "Consolidation", 1),
    ("Atelectasis is present in neither lung.", "Atelectasis", 0),
    ("Ground-glass opacities resolved entirely.", "Lung opacity", 0),
    ("The pleural effusion resolved partially.", "Pleural effusion", 1),
    ("A new catheter was placed after the old one was removed.", "Medical material", 1),
    ("A new pneumothorax has not occurred.", "Pneumothorax", 0),
    ("Findings represent atelectasis rather than consolidation.", "Consolidation", 0),
    ("No significant size change was observed in the nodules.", "Lung nodule", 1),
    ("The opacities described above show a peripheral distribution.", "Lung opacity", 1),
    ("The described nodule lies in the right lung.", "Lung nodule", 1),
    ("There are increases in density in both lungs, accompanied by sequelae.", "Lung opacity", 1),
    ("Density increases evaluated in favor of sequelae are observed in the right lung.", "Lung opacity", 0),
    ("An area of increase in density compatible with atelectasis is seen in the left lung.", "Lung opacity", 0),
    ("Pleuroparenchymal density increases are observed in the lung apex.", "Lung opacity", 0),
    ("Alveolar densities are observed in the lower lobes.", "Lung opacity", 1),
    ("Subpleural bands are observed in both lungs.", "Pulmonary fibrotic sequela", 1),
    ("Effusion is observed around both kidneys.", "Pleural effusion", 0),
    ("The catheter observed in the previous examination was removed.", "Medical material", 0),
    ("The ground glass areas observed in the previous examination have regressed.", "Lung opacity", 0),
    ("In mediastinal lymph node stations, no lymph node is observed in pathological size.", "Lymphadenopathy", 0),
]


@pytest.mark.parametrize(("sentence", "abnormality", "present"), CASES)
def test_a_sentence_gives_the_label(rules, vocabulary, sentence, abnormality, present):
    status = decide(rules.findings(sentence), vocabulary).get(abnormality)
    assert (status is Status.PRESENT) == bool(present)


def test_a_suspected_finding_is_uncertain_with_its_evidence(rules):
    findings = rules.findings("The heart is normal. A hypodense lesion is seen in the liver (hydatid cyst?).")
    cyst = next(finding for finding in findings if finding.abnormality == "Hydatid cyst")
    assert cyst.status is Status.UNCERTAIN
    assert cyst.evidence == "A hypodense lesion is seen in the liver (hydatid cyst?)."


def test_a_doubt_is_uncertain_as_a_finding_and_as_a_label(rules, vocabulary):
    findings = rules.findings("Ground glass areas are seen (viral pneumonia?). Tuberculosis cannot be excluded.")
    said = {finding.abnormality: finding.status for finding in findings}
    assert (said["Pneumonia"], said["Tuberculosis"]) == (Status.UNCERTAIN, Status.UNCERTAIN)
    decided = decide(findings, vocabulary)
    assert (decided["Pneumonia"], decided["Tuberculosis"]) == (Status.UNCERTAIN, Status.UNCERTAIN)


def test_a_negation_inside_the_mention_counts(rules):
    text = "The pericardial sac is free of fluid. The wall of the thoracic aorta is smooth without calcification."
    assert {finding.status for finding in rules.findings(text)} == {Status.ABSENT}


def test_the_location_is_the_one_of_the_clause(rules):
    text = "A nodule is observed in the upper lobe of the right lung, and consolidation is seen in the left lung."
    places = {finding.abnormality: finding.location for finding in rules.findings(text)}
    assert places["Lung nodule"] == "upper lobe of the right lung"
    assert places["Consolidation"] == "left lung"


def test_another_language_gives_no_finding(rules):
    assert rules.findings("Her iki akciğerde yaygın değişiklikler izlendi. Kalp boyutları doğaldır.") == []


def test_a_hundred_thousand_characters_are_read(rules):
    text = "No nodule was detected in the lung parenchyma and " * 2000 + "consolidation is observed."
    found = {finding.abnormality: finding.status for finding in rules.findings(text)}
    assert len(text) > 100_000
    assert found["Consolidation"] is Status.PRESENT


def _records(folder, name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def _agreement(rules, vocabulary, texts, truth, names, uncertain="negative"):
    said = [decide(rules.findings(text), vocabulary) for text in texts]
    ids = [str(number) for number in range(len(texts))]
    table = table_of(ids, names, [[int(VALUES[row[name]]) if name in row else None for name in names] for row in said])
    return {result.name: result for result in agree(table, table_of(ids, names, truth), uncertain=uncertain, samples=1)}


def test_rules_agree_with_human_labels(rules, vocabulary, real_reports):
    records = _records(real_reports, "ctrate_manual_labels_50.jsonl")
    names = vocabulary.label_set("ct-rate-18")
    truth = [[record["labels18_manual"][name] for name in names] for record in records]
    result = _agreement(rules, vocabulary, [record["report_text"] for record in records], truth, names)
    assert result["macro"].f1[0] >= 0.98
    assert min(result[name].f1[0] for name in names) >= 0.9


def test_rules_agree_with_checked_long_tail_labels(rules, vocabulary, real_reports):
    records = _records(real_reports, "ctrate_valid_60.jsonl")
    names = vocabulary.label_set("ct-rate-lt-15")
    texts = [f"{record['findings']} {record['impression']}" for record in records]
    truth = [[record["labels_lt15"][name] for name in names] for record in records]
    # CT-RATE-LT counts a suspected pneumonia, tuberculosis or mass.
    assert _agreement(rules, vocabulary, texts, truth, names, "positive")["micro"].f1[0] >= 0.9


def test_every_evidence_is_a_piece_of_its_report(rules, real_reports):
    for record in _records(real_reports, "ctrate_valid_60.jsonl"):
        text = f"{record['findings']} {record['impression']}"
        for finding in rules.findings(text):
            assert finding.evidence in text
            assert finding.location in finding.evidence
            assert finding.raw_name in finding.evidence


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Consolidation is seen in the left lower lobe.", Status.PRESENT),
        ("Consolidation is seen in the left lower lobe. Pneumonia is unlikely.", Status.ABSENT),
        ("Consolidation of the left lower lobe, not due to pneumonia.", Status.ABSENT),
        ("Consolidation is seen in the left lower lobe. Pneumonia?", Status.UNCERTAIN),
    ],
)
def test_what_is_implied_yields_to_what_is_said(rules, vocabulary, text, status):
    assert decide(rules.findings(text), vocabulary)["Pneumonia"] is status
