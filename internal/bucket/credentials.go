package bucket

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

const (
	// credentialsAge is how long credentials from a file are used until it is read
	// again: a key that was replaced is taken up without a restart.
	credentialsAge = time.Minute
	// profile is the section of the file that counts.
	profile = "default"
	// maxCredentials bounds the file: a session's token has some 2 KiB.
	maxCredentials = 64 << 10
)

// credentialsError: there are none to call with.
type credentialsError struct{ why error }

func (e *credentialsError) Error() string { return "there are no credentials: " + e.why.Error() }

// CheckCredentials says what is wrong with a file of credentials.
func CheckCredentials(path string) error {
	_, err := readCredentials(context.Background(), path)
	return err
}

// readCredentials reads the file, which nobody else may read.
func readCredentials(ctx context.Context, path string) (aws.Credentials, error) {
	st, err := os.Stat(path)
	if err != nil {
		return aws.Credentials{}, err
	}
	switch {
	case st.Mode().Perm()&0o077 != 0:
		return aws.Credentials{}, fmt.Errorf("%s: others may read it (mode %04o), and it holds a secret: chmod 600 %s", path, st.Mode().Perm(), path)
	case !st.Mode().IsRegular() || st.Size() > maxCredentials:
		return aws.Credentials{}, fmt.Errorf("%s: no file of credentials, such as ~/.aws/credentials", path)
	}
	c, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{path}, []string{}
	})
	if err != nil || !c.Credentials.HasKeys() {
		// What the parser says may quote the file.
		return aws.Credentials{}, fmt.Errorf("%s: no credentials are in it: write [%s], aws_access_key_id = … and aws_secret_access_key = … on lines of their own", path, profile)
	}
	return c.Credentials, nil
}

// credentials is where a bucket's come from.
func credentials(c *Config) (aws.CredentialsProvider, error) {
	if path := c.Credentials; path != "" {
		return aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			got, err := readCredentials(ctx, path)
			if err != nil {
				return got, &credentialsError{err}
			}
			got.CanExpire, got.Expires = true, time.Now().Add(credentialsAge)
			return got, nil
		})), nil
	}
	all, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(c.Region))
	if err != nil {
		return nil, fmt.Errorf("credentials for the bucket: %w", err)
	}
	found := all.Credentials
	return aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		got, err := found.Retrieve(ctx)
		if err != nil {
			return got, &credentialsError{err}
		}
		return got, nil
	})), nil
}
