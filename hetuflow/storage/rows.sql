-- name: plan_each_time
-- Until the transaction ends every statement is planned for the values it has.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true)
