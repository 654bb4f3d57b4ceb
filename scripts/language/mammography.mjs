// Words and sentences of mammography reports, our own. How they are read: grammar.mjs.

export const rules = {
  breast: ['left breast', 'right breast'],
  quadrant: [
    'upper outer quadrant',
    'upper inner quadrant',
    'lower outer quadrant',
    'lower inner quadrant',
    'retroareolar region',
    'axillary tail',
  ],
  depth: ['anterior', 'middle', 'posterior'],
  where: ['in the <@quadrant> of the SIDE breast', 'at <depth> depth', 'in the SIDE breast', 'in the <@quadrant>'],
  extentOf: ['measuring 5 mm', 'measuring 8 mm', 'measuring 12 mm', 'measuring 15 mm', 'measuring 20 mm'],

  shape: ['round', 'oval', 'irregular', 'lobulated', 'focal asymmetry'],
  margin: ['circumscribed', 'obscured', 'indistinct', 'microlobulated', 'spiculated'],
  massDensity: ['high density', 'isodense', 'low density', 'fat containing'],
  calcification: ['punctate', 'coarse', 'amorphous', 'fine pleomorphic', 'fine linear', 'round', 'vascular', 'benign'],
  distribution: ['diffuse', 'grouped', 'segmental', 'linear', 'regional', 'clustered', 'scattered'],

  opening: [
    'SIDE breast mammogram , VIEW view',
    'digital mammogram of the SIDE breast',
    'VIEW view of the SIDE breast',
    'screening mammogram , SIDE breast',
    'diagnostic mammogram of the SIDE breast',
    'exam : full field digital mammogram',
    'indication : screening',
    'indication : palpable lump in the SIDE breast',
    'history : routine screening',
  ],
  mass: [
    'there is a SHAPE , <margin> , MASSDENSITY mass <where?>',
    'a SHAPE mass with <margin> margins is seen <where?>',
    'a <margin> MASSDENSITY mass <where?> , <extentOf>',
    'the mass is SHAPE and MASSDENSITY',
    'a SHAPE mass <where?> <extentOf>',
  ],
  calcifications: [
    'there are CALCIFICATION calcifications in a DISTRIBUTION distribution <where?>',
    'DISTRIBUTION CALCIFICATION calcifications <where?>',
    'CALCIFICATION calcifications are DISTRIBUTION <where?>',
  ],
  otherFinding: [
    'architectural distortion <where?>',
    'a focal asymmetry <where?>',
    'skin thickening of the SIDE breast',
    'an intramammary lymph node <where?>',
    'nipple retraction',
    'a biopsy clip <where?>',
    'a global asymmetry of the SIDE breast',
  ],
  clear: [
    'no suspicious masses , calcifications or architectural distortion',
    'there is no mass or suspicious calcification',
    'no evidence of malignancy',
    'no dominant mass is seen',
    'the skin and nipple are normal',
    'no significant change from the prior mammogram',
    'no axillary adenopathy',
  ],

  density1: ['the breast is almost entirely fat', 'fatty breast tissue', 'the breast tissue is almost entirely fatty'],
  density2: [
    'there are scattered fibroglandular densities',
    'scattered areas of fibroglandular density',
    'the breast has scattered fibroglandular tissue',
  ],
  density3: [
    'the breast tissue is heterogeneously dense',
    'heterogeneously dense tissue , which may obscure small masses',
    'the breast is heterogeneously dense',
  ],
  density4: [
    'the breast tissue is extremely dense',
    'extremely dense tissue , which lowers the sensitivity of mammography',
    'the breast is extremely dense',
  ],
  density5: ['normal male breast', 'male breast tissue , normal'],

  birads0: [
    'incomplete , additional imaging is needed',
    'additional views are recommended',
    'recommend spot compression',
  ],
  birads1: ['negative mammogram', 'negative , routine screening in one year', 'normal mammogram'],
  birads2: ['benign findings', 'benign , routine screening is recommended', 'benign appearing finding'],
  birads3: ['probably benign , follow up in six months', 'probably benign finding , short interval follow up'],
  birads4: [
    'suspicious abnormality , biopsy should be considered',
    'suspicious for malignancy , biopsy is recommended',
  ],
  birads5: ['highly suggestive of malignancy', 'highly suspicious for cancer , biopsy is recommended'],
  birads6: ['known biopsy proven malignancy', 'known cancer , treatment is under way'],
  assessment: [
    'impression : WORDS',
    'WORDS',
    'bi-rads category NUMBER : WORDS',
    'assessment : WORDS',
    'bi-rads NUMBER',
  ],
}

/** How often each BI-RADS category comes, 0 to 6, and each density, 1 to 5: flatter than in screening, so that all are learned. */
export const birads = [0.16, 0.28, 0.18, 0.12, 0.12, 0.08, 0.06]
export const densities = [0.18, 0.32, 0.32, 0.16, 0.02]

/** As EMBED's tables have them. */
export const tables = {
  procedure: [
    'MG Screening Bilateral',
    'MG Screen Bilat w/Tomo/CAD Stnd Protocol',
    'MG Diagnostic Bilateral w/ CAD',
    'MG Diagnostic Left w/CAD',
    'MG Diagnostic Right w/CAD',
  ],
  imageType: ['2D', 'cview'],
  side: ['L', 'R'],
  view: ['CC', 'MLO', 'ML', 'LM', 'XCCL'],
  race: [
    'African American  or Black',
    'Caucasian or White',
    'Asian',
    'American Indian or Alaskan Native',
    'Native Hawaiian or Other Pacific Islander',
    'Multiple',
    'Unknown, Unavailable or Unreported',
  ],
  ethnicity: ['Non-Hispanic or Latino', 'Hispanic or Latino', 'Unreported, Unknown, Unavailable'],
}
