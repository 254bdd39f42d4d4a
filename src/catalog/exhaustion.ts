/** What may happen when prepaid packs are used up: units at the standard price, another pack is bought, or no more is used. */
export const Exhaustion = ['standard_price', 'auto_recharge', 'block'] as const
export type Exhaustion = (typeof Exhaustion)[number]
