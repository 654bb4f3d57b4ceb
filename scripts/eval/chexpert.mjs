// What CheXpert's evaluations share: five findings, tested on CheXpert-5x200, whose patients training leaves out.
export const test = (root, perClass) => ({ kind: 'chexpert-5x200', root, ...(perClass !== undefined && { perClass }) })

export const training = (root, perClass) => ({
  kind: 'chexpert',
  root,
  labels: 'five',
  ...(perClass !== undefined && { holdout: { perClass } }),
})
