/*
 * What CheXpert's train.csv (v1.0, the labeler's own labels) says of its findings, in numbers: how often each is positive,
 * uncertain and negative, and how often each two are positive together. Counted by scripts/phantoms/statistics.mjs.
 */

/** Rows of the table. */
export const ROWS = 223414

/** Rows in which no finding but Support Devices is positive or uncertain. */
export const WITHOUT_PATHOLOGY = 28480

/** Rows with No Finding, all of them among those without pathology. */
export const NO_FINDING = 22381

/** Rows without pathology in which Support Devices is positive, and those in which it is positive or uncertain. */
export const DEVICES_WITHOUT_PATHOLOGY = { positive: 10625, stated: 10761 }

export interface FindingCounts {
  readonly name: string
  readonly positive: number
  readonly uncertain: number
  readonly negative: number
  /** Negative in rows without pathology, whose reports deny more. */
  readonly negativeWithoutPathology: number
}

/** In the table's order, after No Finding. */
export const FINDINGS: readonly FindingCounts[] = [
  {
    name: 'Enlarged Cardiomediastinum',
    positive: 10798,
    uncertain: 12403,
    negative: 21638,
    negativeWithoutPathology: 10910,
  },
  { name: 'Cardiomegaly', positive: 27000, uncertain: 8087, negative: 11116, negativeWithoutPathology: 4781 },
  { name: 'Lung Opacity', positive: 105581, uncertain: 5598, negative: 6599, negativeWithoutPathology: 3108 },
  { name: 'Lung Lesion', positive: 9186, uncertain: 1488, negative: 1270, negativeWithoutPathology: 562 },
  { name: 'Edema', positive: 52246, uncertain: 12984, negative: 20726, negativeWithoutPathology: 5901 },
  { name: 'Consolidation', positive: 14783, uncertain: 27742, negative: 28097, negativeWithoutPathology: 12003 },
  { name: 'Pneumonia', positive: 6039, uncertain: 18770, negative: 2799, negativeWithoutPathology: 1337 },
  { name: 'Atelectasis', positive: 33376, uncertain: 33739, negative: 1328, negativeWithoutPathology: 605 },
  { name: 'Pneumothorax', positive: 19448, uncertain: 3145, negative: 56341, negativeWithoutPathology: 16463 },
  { name: 'Pleural Effusion', positive: 86187, uncertain: 11628, negative: 35396, negativeWithoutPathology: 15172 },
  { name: 'Pleural Other', positive: 3523, uncertain: 2653, negative: 316, negativeWithoutPathology: 31 },
  { name: 'Fracture', positive: 9040, uncertain: 642, negative: 2512, negativeWithoutPathology: 1418 },
  { name: 'Support Devices', positive: 116001, uncertain: 1079, negative: 6137, negativeWithoutPathology: 801 },
]

/** Rows in which both are positive: row i has those with the findings before it. */
export const BOTH_POSITIVE: readonly (readonly number[])[] = [
  [],
  [1901],
  [5100, 13049],
  [509, 623, 5316],
  [2129, 11659, 27455, 866],
  [585, 1436, 5574, 748, 3154],
  [150, 495, 4025, 454, 1204, 1014],
  [1491, 3828, 14146, 1025, 8844, 2003, 615],
  [773, 777, 9063, 866, 1479, 739, 146, 3131],
  [3888, 11836, 52198, 3265, 26521, 7403, 1733, 16290, 6691],
  [193, 325, 1879, 310, 304, 300, 123, 389, 253, 920],
  [637, 801, 3611, 343, 1009, 401, 141, 1281, 1050, 2456, 296],
  [5614, 15539, 61338, 3212, 33491, 7728, 1765, 20166, 11676, 52869, 1357, 3628],
]
