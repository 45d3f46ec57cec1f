"""The abnormalities that a phantom can show, in the order in which they are drawn and painted."""

from brgsa_training.phantom.abnormalities import airway, bone, device, heart, lung, mediastinum, pattern, pleura

# Those that change a shape come before those that are placed on it; texture before what lies on top of it.
ABNORMALITIES = {
    "Cardiomegaly": heart.cardiomegaly,
    "Pericardial effusion": heart.pericardial_effusion,
    "Emphysema": pattern.emphysema,
    "Pulmonary fibrosis": pattern.pulmonary_fibrosis,
    "Atelectasis": pattern.atelectasis,
    "Pneumothorax": pleura.pneumothorax,
    "Pneumomediastinum": mediastinum.pneumomediastinum,
    "Mosaic attenuation pattern": pattern.mosaic_attenuation,
    "Interlobular septal thickening": pattern.interlobular_septal_thickening,
    "Lung opacity": lung.lung_opacity,
    "Pneumonia": lung.pneumonia,
    "Consolidation": lung.consolidation,
    "Pulmonary fibrotic sequela": pattern.pulmonary_fibrotic_sequela,
    "Lung cyst": lung.lung_cyst,
    "Tuberculosis": lung.tuberculosis,
    "Lung nodule": lung.lung_nodule,
    "Lung mass": lung.lung_mass,
    "Peribronchial thickening": airway.peribronchial_thickening,
    "Bronchiectasis": airway.bronchiectasis,
    "Pleural effusion": pleura.pleural_effusion,
    "Empyema": pleura.empyema,
    "Hiatal hernia": mediastinum.hiatal_hernia,
    "Lymphadenopathy": mediastinum.lymphadenopathy,
    "Arterial wall calcification": mediastinum.arterial_wall_calcification,
    "Coronary artery wall calcification": heart.coronary_artery_wall_calcification,
    "Pericardial calcification": heart.pericardial_calcification,
    "Pleural calcification": pleura.pleural_calcification,
    "Osteophyte": bone.osteophyte,
    "Rib fracture": bone.rib_fracture,
    "Medical material": device.medical_material,
}
