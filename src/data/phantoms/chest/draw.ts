import type { GrayImage } from '../../images/gray.js'
import { Random } from '../../random.js'
import { Layer } from '../canvas.js'
import { collimate, expose, mark, type Placement, pixelOf, project, sampleWarp, toGray } from '../film.js'
import { type Body, chestFrame, type FrontalView, type Shape, sampleShape } from './anatomy.js'
import { placeDevices } from './devices.js'
import * as findings from './findings.js'
import { drawBones, drawChestOrgans, drawTrunk, drawVessels, outlineLungs, type Scene } from './scene.js'

/** How severe each finding is that is there: 0 (hardly to be seen) to 1. Names as in CheXpert's table. */
export type Severities = ReadonlyMap<string, number>

export interface ChestSettings {
  /** What the random numbers of this image begin with. */
  readonly keys: readonly (number | string)[]
  readonly body: Body
  readonly view: FrontalView
  readonly severities: Severities
  readonly width: number
  readonly height: number
  /** Pixels a unit of the drawing. */
  readonly scale: number
}

export interface ChestImage {
  readonly image: GrayImage
  /** What encloses each opacity of Pneumonia, in pixels of the image. */
  readonly boxes: readonly { readonly x: number; readonly y: number; readonly width: number; readonly height: number }[]
}

/** A frontal radiograph. What is random in the film does not depend on the findings, and each finding has numbers of its own. */
export function drawChest(settings: ChestSettings): ChestImage {
  const { keys, body, view } = settings
  const random = (purpose: string) => new Random(...keys, purpose)
  const shape = sampleShape(random('shape'), body, view)
  const { density, patches } = drawAbsorption(settings, shape)
  const placement = placeFilm(random('position'), settings, shape)
  const film = project(density, placement)
  const exposure = random('exposure')
  const portable = view === 'AP'
  const levels = expose(
    film,
    settings.width,
    {
      black: exposure.uniform(0.02, 0.14),
      white: exposure.uniform(0.92, 1.12),
      gamma: exposure.uniform(0.72, 1.25),
      grain: exposure.uniform(1, portable ? 7 : 4),
      heel: [exposure.normal(0, 0.05), exposure.normal(0, 0.04)],
    },
    random('grain'),
  )
  mark(random('marker'), levels, settings.width)
  collimate(random('collimation'), levels, settings.width)
  return { image: toGray(levels, settings.width), boxes: patches.map((patch) => boxOf(placement, patch)) }
}

function drawAbsorption(settings: ChestSettings, shape: Shape): { density: Layer; patches: findings.Patch[] } {
  const { keys, body, severities } = settings
  const random = (purpose: string) => new Random(...keys, purpose)
  /** Runs what a finding does where it is there, with its own random numbers. */
  const where = <Result>(name: string, act: (random: Random, severity: number) => Result): Result | null => {
    const severity = severities.get(name)
    return severity === undefined ? null : act(random(name), severity)
  }
  where('Cardiomegaly', (own, severity) => findings.enlargeHeart(own, severity, shape))
  where('Enlarged Cardiomediastinum', (own, severity) => findings.widenMediastinum(own, severity, shape))
  const loss = where('Atelectasis', (own, severity) => findings.loseVolume(own, severity, shape))
  const broken = where('Fracture', (own, severity) => findings.breakRibs(own, severity, body, shape)) ?? []

  const frame = chestFrame(settings.scale)
  const scene: Scene = { body, shape, density: new Layer(frame), lungs: outlineLungs(body, shape, frame) }
  drawTrunk(random('trunk'), scene)
  drawChestOrgans(random('organs'), scene)
  const collapse = where('Pneumothorax', (own, severity) => findings.collapse(own, severity))
  const kept = collapse === null ? null : findings.keptLung(scene, collapse)
  const vessels = new Random(body.vesselSeed, 'vessels')
  const congested = 1 + 0.5 * (severities.get('Edema') ?? 0)
  drawVessels(vessels, scene, congested, kept === null ? () => 1 : (index) => kept.data[index]!)

  where('Edema', (own, severity) => findings.flood(own, severity, scene))
  where('Lung Opacity', (own, severity) => findings.opacify(own, severity, scene))
  where('Consolidation', (own, severity) => findings.consolidate(own, severity, scene))
  const patches = where('Pneumonia', (own, severity) => findings.inflame(own, severity, scene)) ?? []
  where('Lung Lesion', (own, severity) => findings.addNodules(own, severity, scene))
  if (loss !== null) findings.drawAtelectasis(random('Atelectasis, drawn'), loss, scene)
  if (collapse !== null && kept !== null) findings.drawPneumothorax(scene, collapse, kept)
  where('Pleural Effusion', (own, severity) => findings.pourFluid(own, severity, scene))
  where('Pleural Other', (own, severity) => findings.thickenPleura(own, severity, scene))
  drawBones(random('bones'), scene, broken)
  where('Support Devices', (own, severity) => placeDevices(own, severity, scene))
  return { density: scene.density, patches }
}

function placeFilm(random: Random, { width, height }: ChestSettings, shape: Shape): Placement {
  const portable = shape.view === 'AP'
  // Seen are the thorax with some room at its sides, and all of its height: whichever needs more.
  const across = random.uniform(2.35, 2.95)
  const down = random.uniform(2.15, 2.6)
  return {
    width,
    height,
    center: { x: random.normal(0, 0.06), y: 0.82 + random.normal(0, 0.08) },
    pixel: Math.max(across / width, down / height),
    angle: random.normal(0, portable ? 0.05 : 0.022),
    warp: sampleWarp(random, 0.05, 0.9),
  }
}

function boxOf(placement: Placement, { center, radii }: findings.Patch): ChestImage['boxes'][number] {
  const corners = [-1, 1].flatMap((u) =>
    [-1, 1].map((v) => pixelOf(placement, { x: center.x + u * radii[0], y: center.y + v * radii[1] })),
  )
  const limit = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)))
  const x = limit(Math.min(...corners.map((corner) => corner.x)), placement.width - 2)
  const y = limit(Math.min(...corners.map((corner) => corner.y)), placement.height - 2)
  return {
    x,
    y,
    width: Math.max(1, limit(Math.max(...corners.map((corner) => corner.x)), placement.width) - x),
    height: Math.max(1, limit(Math.max(...corners.map((corner) => corner.y)), placement.height) - y),
  }
}
