-- Coupons: a discount under a code, and who has redeemed it. Forward only. Times are epoch milliseconds, days are calendar days.

CREATE TABLE coupons (
  code            text    PRIMARY KEY,
  name            text    NOT NULL,
  kind            text    NOT NULL CHECK (kind IN ('percent', 'amount')),
  value           numeric NOT NULL CHECK (value > 0),
  currency        text    CHECK ((currency IS NOT NULL) = (kind = 'amount')),
  valid_from      text,                  -- first and last day on which it may be redeemed
  valid_until     text,
  periods         int     CHECK (periods > 0),         -- billing periods it counts for; NULL: as long as the contract
  redemptions_max int     CHECK (redemptions_max > 0), -- contracts that may redeem it; NULL: any number
  created_at      bigint  NOT NULL
);

CREATE TABLE coupon_redemptions (
  code        text   NOT NULL REFERENCES coupons (code),
  contract    text   NOT NULL REFERENCES catalog_contracts (id),
  redeemed_at bigint NOT NULL,
  PRIMARY KEY (code, contract)           -- once a contract
);
